"""Small inputs that have gone wrong once, from the image to the figures: those that no other test carries so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rasterio
from case_files import CASES, case
from segmented import segmented

from tiling.export.export_run import export_run
from tiling.export.statistics import read_statistics
from tiling.runs.run import Run


def exported(name: str, out: Path) -> Run:
    run = segmented(case(name), out, CASES / "models" / "rgb", 128)
    with run.open_source() as source:
        export_run(run, source, "statistics,cog")
    return run


def rows_of(run: Run) -> dict[str, dict[str, Any]]:
    return {row["class"]: row for row in read_statistics(run.exports / "statistics.parquet")}


@pytest.mark.parametrize("name", ["b04_ftus_key.tif", "b04_ftus_nokey.tif"])
def test_feet_are_feet_whether_a_key_or_the_crs_says_so(name: str, tmp_path: Path) -> None:
    run = exported(name, tmp_path / "run")
    foot = pytest.approx(1200 / 3937)
    size = run.pixel_size
    assert size is not None
    assert (size.y, size.x, size.unit) == (foot, foot, "m")
    row = rows_of(run)["r"]
    assert row["area_km2"] * 1e6 == pytest.approx(167.2, abs=0.05)
    assert (row["pixel_size_y"], row["pixel_size_x"], row["pixel_size_unit"]) == (foot, foot, "m")


def test_a_mask_lies_where_gdal_has_an_image_of_negative_scale(tmp_path: Path) -> None:
    run = exported("b03_negscale.tif", tmp_path / "run")
    with rasterio.open(case("b03_negscale.tif")) as image, rasterio.open(run.exports / "mask.tif") as mask:
        assert mask.transform.almost_equals(image.transform)
        assert mask.bounds == image.bounds


def test_web_mercator_at_60_degrees_is_a_quarter_on_the_ground(tmp_path: Path) -> None:
    rows = rows_of(exported("j01_3857.tif", tmp_path / "run")).values()
    assert round(sum(row["area_km2"] for row in rows), 4) == 0.0075
    assert sum(row["area_projected_km2"] for row in rows) == pytest.approx(0.03)
