"""What each worker process loads before its first tile: nothing that only others need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("dask", "pandas", "xarray", "rasterio", "shapely", "scipy", "ray", "prefect")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("flows.worker.tile_worker", HEAVY), ("flows.worker.staging_worker", (*HEAVY, "torch"))],
)
def test_workers_load_only_what_they_need(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import json, sys, {module}; print(json.dumps([*sys.modules]))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    loaded = set(json.loads(said.stdout.splitlines()[-1]))
    assert loaded & set(heavy) == set()
