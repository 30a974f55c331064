"""Metadata of images compared with GDAL's, over every file that both open."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from case_files import CASES
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.georeference.crs import crs_of
from tiling.source import ImageSource, open_source
from tiling.view import View

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

JUSTIFIED = {
    ("cog_cmap.tif", "nodata"): "0 is the number of a colour, and our bands are colours: it is the mask that says so",
    ("separate_planar_extra_samples.tiff", "mask"): "the second band was never written: no data here, zeros in GDAL",
    ("g08_s2.tif", "mask"): "none of its tiles was ever written: no data here, zeros in GDAL",
}
"""File and trait in which we read otherwise than GDAL, and why that is right."""

IN_OTHER_FORMATS = {"aperio-svs", "ome-tiff", "imagej-tiff", "qptiff"}
"""GDAL has no reader of these: what it makes of their first page is no reference."""

Difference = tuple[str, Any, Any]


def differences(ours: ImageSource, theirs: Any) -> Iterator[Difference]:
    """Trait, our value and GDAL's, of whatever differs."""
    reference = ours.georeference
    affine = None if reference is None else reference.affine
    if affine != (None if theirs.transform.is_identity else tuple(theirs.transform)[:6]):
        yield "transform", affine, theirs.transform
    crs = None if reference is None else crs_of(reference)
    if crs != (theirs.crs or theirs.gcps[1] or None):
        yield "crs", crs, theirs.crs
    points = [] if reference is None else [(col, row, x, y) for col, row, _, x, y, _ in reference.tiepoints]
    if points != [(point.col, point.row, point.x, point.y) for point in theirs.gcps[0]]:
        yield "ground control points", points, theirs.gcps[0]
    size, first = unit_of(theirs), ours.levels[0].pixel_size
    if ours.format == "geotiff" and (first.unit if first else None, first.x if first else None) != size:
        yield "unit", first, size
    if not same_number(ours.nodata, theirs.nodata):
        yield "nodata", ours.nodata, theirs.nodata
    coarser = [(level.height, level.width) for level in ours.levels[1:]]
    if coarser != overviews_of(theirs):
        yield "overviews", coarser, overviews_of(theirs)
    box = ours.levels[0].box.intersect(Box(0, 0, 2048, 2048))
    held = theirs.dataset_mask(window=((0, box.y1), (0, box.x1))) > 0
    if not np.array_equal(held_by_us(ours, box), held):
        yield "mask", int(held_by_us(ours, box).sum()), int(held.sum())


def unit_of(theirs: Any) -> tuple[str | None, Any]:
    """The unit and the width of a pixel in it, as GDAL and PROJ say."""
    if theirs.transform.is_identity or not theirs.crs:
        return None, None
    side = math.hypot(theirs.transform.a, theirs.transform.d)
    if theirs.crs.is_geographic:
        return "degree", pytest.approx(side * theirs.crs.units_factor[1] * 180 / math.pi, rel=1e-12)
    return "m", pytest.approx(side * theirs.crs.linear_units_factor[1], rel=1e-12)


def same_number(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None or math.isnan(ours) or math.isnan(theirs):
        return ours is theirs or (ours is not None and theirs is not None and math.isnan(ours) and math.isnan(theirs))
    return ours == theirs or np.float32(ours) == np.float32(theirs)


def overviews_of(theirs: Any) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    for level in range(len(theirs.overviews(1))):
        with rasterio.open(theirs.name, driver="GTiff", overview_level=level) as overview:
            sizes.append(overview.shape)
    return sizes


def held_by_us(ours: ImageSource, box: Box) -> Any:
    """Which pixels hold data: by the mask or alpha channel, else where not every band is the value for no data."""
    held = ours.read_mask(0, box)
    if held is not None:
        return held
    if ours.nodata is None:
        return np.ones(box.shape, np.bool_)
    pixels = ours.read(0, box)
    # Of a float's text, GDAL takes one shorter than the value for the value.
    rtol = 1e-5 if pixels.dtype.kind == "f" else 0.0
    empty = np.isclose(pixels.astype(np.float64), ours.nodata, rtol=rtol, atol=0, equal_nan=True)
    return ~empty.all(axis=-1)


def both_open(files: list[Path]) -> Iterator[tuple[ImageSource, Any]]:
    for path in files:
        try:
            with open_source(path) as found:
                view = View(series=0) if found.images else None  # of several images GDAL opens the first
            with rasterio.open(path, driver="GTiff") as theirs, open_source(path, view) as ours:
                if ours.format not in IN_OTHER_FORMATS:
                    yield ours, theirs
        except (RasterioIOError, SourceError):
            continue


@pytest.mark.parametrize(("folder", "least"), [("geo", 40), ("malformed", 80), ("cases", 15)])
def test_we_read_of_every_file_what_gdal_reads(folder: str, least: int, data_dir: Path) -> None:
    root = CASES if folder == "cases" else data_dir / folder
    if not root.is_dir():
        pytest.skip(f"the folder {root.name} is absent")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    unjustified: list[str] = []
    compared = 0
    for ours, theirs in both_open(files):
        compared += 1
        for trait, our, their in differences(ours, theirs):
            if (ours.path.name, trait) not in JUSTIFIED:
                unjustified.append(f"{ours.path.name}: {trait} is {our} here, {their} in GDAL")
    assert unjustified == []
    assert compared >= least


@pytest.mark.parametrize("code", [2263, 4326, 4807, 3857, 32661, 27700, 2193, 3031])
def test_units_and_axis_order_are_projs(code: int, tmp_path: Path) -> None:
    """Feet, grads, easting and northing in either order: x of the transform is always to the east."""
    path = tmp_path / "map.tif"
    transform = rasterio.Affine(0.25, 0, 10, 0, -0.5, 20)
    made: dict[str, Any] = {"driver": "GTiff", "width": 3, "height": 2, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **made, crs=CRS.from_epsg(code), transform=transform) as file:
        file.write(np.ones((1, 2, 3), np.uint8))
    with open_source(path) as ours, rasterio.open(path, driver="GTiff") as theirs:
        assert [*differences(ours, theirs)] == []
        assert ours.georeference is not None
        assert ours.georeference.crs == f"EPSG:{code}"
