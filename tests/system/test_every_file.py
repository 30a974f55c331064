"""Every file of the open imagery through segmentation and all exports; two of them through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import tifffile
from cli import Cli
from rasterio import features
from rio_cogeo import cog_validate

from benchmarks.exported import compare, shown_bands
from benchmarks.files import ROOT, files_of
from tiling.runs.run import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_every_file_goes_through_and_its_exports_hold_its_mask(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    page, log = tmp_path / "page.md", tmp_path / "rows"
    command = [sys.executable, "-m", "benchmarks.files", "--out", str(tmp_path / "runs"), "--page", str(page)]
    with log.open("wb") as said:
        subprocess.run(command, cwd=ROOT, env={**cli.environment, "PYTHONPATH": str(ROOT)}, stdout=said, check=True)
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    rows: dict[str, Any] = {row["file"].rpartition("/")[2]: row for row in found}
    assert len(rows) == len(files_of(data_dir)) > 40
    assert {name for name, row in rows.items() if not row["held"]} == {"unopenable.tiff"}
    assert {name: row["faults"] for name, row in rows.items() if row["faults"]} == {}
    assert {name for name, row in rows.items() if row["failed"]} == {"corrupt.tif", "unreadable.svs"}
    least = {"statistics", "ome-tiff", "qupath", "geoparquet"}
    assert all(least <= {*row["held"]} for row in rows.values() if row["held"])
    assert all(name in page.read_text() for name in rows)


def test_the_command_line_brings_a_slide_to_what_suits_it(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    image, out = data_dir / "slides" / "CMU-1-Small-Region.svs", tmp_path / "run"
    ended = cli.run("segment", image, "--out", out)
    assert ended.code == 0, ended.err
    exports = sorted(path.name for path in (out / "exports").iterdir())
    tables = ["objects-table.csv", "objects-table.parquet", "statistics.csv", "statistics.parquet"]
    assert exports == sorted(["foreground.png", "mask.ome.tif", "qupath.geojson", *tables])
    run = Run.open(out)
    labels = run.open_mask(read_only=True).levels[0][:]
    np.testing.assert_array_equal(tifffile.imread(out / "exports" / "mask.ome.tif"), labels)
    assert compare(run, "qupath")["differing"] == 0
    assert cli.run("export", out, "--format", "geoparquet").out.split() == [str(out / "exports" / "objects.parquet")]
    assert compare(run, "geoparquet")["differing"] == 0
    refused = cli.run("export", out, "--format", "geopackage")
    assert refused.code != 0
    assert "use qupath or geoparquet" in " ".join((refused.out + refused.err).split())


def test_the_command_line_brings_a_scene_to_a_cog_and_a_geopackage(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    image, out = data_dir / "geo" / "solaris" / "sample_geotiff.tif", tmp_path / "run"
    asked = ("--as-is", "--bands", "1,1,1", "--normalise", "percentiles:1,99")
    ended = cli.run("segment", image, *asked, "--out", out)
    assert ended.code == 0, ended.err
    exports = sorted(path.name for path in (out / "exports").iterdir())
    tables = ["objects-table.csv", "objects-table.parquet", "statistics.csv", "statistics.parquet"]
    styles = ["mask.qml", "objects.qml"]
    assert exports == sorted(["foreground.png", "mask.tif", "objects.gpkg", *tables, *styles])
    assert cog_validate(str(out / "exports" / "mask.tif"), strict=True)[0]
    with rasterio.open(out / "exports" / "mask.tif") as cog, rasterio.open(image) as source:
        assert (cog.transform, cog.crs, cog.shape) == (source.transform, source.crs, source.shape)
        meta, table = pyogrio.read_arrow(out / "exports" / "objects.gpkg")
        assert rasterio.CRS.from_user_input(meta["crs"]) == source.crs
        polygons = shapely.from_wkb(table.column(meta["geometry_name"] or "geometry").to_pylist())
        pairs = list(zip(polygons, table.column("label").to_pylist(), strict=True))
        burnt = features.rasterize(pairs, source.shape, transform=source.transform, dtype="uint8")
        np.testing.assert_array_equal(burnt, np.concatenate([*shown_bands(Run.open(out))]))
        np.testing.assert_array_equal(cog.read(1), Run.open(out).open_mask(read_only=True).levels[0][:])
    ended = cli.run("export", out, "--format", "geojson,geoparquet,qupath,ome-tiff")
    assert ended.code == 0, ended.err
    assert json.loads((out / "exports" / "objects.geojson").read_bytes())["features"]
