"""Areas in the report are those of the map's own pixels, also where these are no rectangles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from finished import finished_run, labels_of

from flows.reporting.areas import Areas, known_areas
from tiling.export.export_run import export_run


def test_a_sheared_maps_areas_are_those_of_its_pixels(tmp_path: Path) -> None:
    options: dict[str, Any] = {"driver": "GTiff", "width": 300, "height": 200, "count": 1, "dtype": "uint8"}
    sheared = rasterio.Affine(10, 6, 500_000, 0, -8, 5_500_000)
    with rasterio.open(tmp_path / "scene.tif", "w", crs="EPSG:32632", transform=sheared, **options) as file:
        file.write(np.zeros((1, 200, 300), np.uint8))
    run = finished_run(tmp_path / "scene.tif", tmp_path / "run")
    with run.open_source() as source:
        export_run(run, source, "statistics")
    pixels = int((labels_of(run) == 1).sum())
    for rows in (Areas.of(run, run.ledger.fold()).rows, known_areas(run, run.ledger.fold())):
        value, unit = rows[1].text.split()
        assert (float(value), unit) == (pytest.approx(pixels * 80e-6, abs=0.001), "km²")
