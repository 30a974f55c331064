"""Deliveries end to end: what Sentinel-2, Landsat and years of aerial images give lies exactly on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from scene_network import asked_of, two_layers
from scenes import WHERE, scene_pixels, split, write_landsat, write_raster, write_sentinel2
from torch import nn

from flows.api.segment_image import segment_image
from tiling.source import open_source
from tiling.view import View

pytestmark = pytest.mark.slow

SIDE = 480


def fields(side: int = SIDE) -> NDArray[np.uint16]:
    """Fields of four kinds with hedges between them, four bands, and a corner without data."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[:side, :side]
    turned = ((x + y // 3) // 60) * 31 + ((y - x // 4) // 45) * 17
    kinds = np.array([[600, 900, 700, 3200], [1500, 1300, 1100, 1900], [400, 500, 450, 300], [900, 1000, 800, 2500]])
    pixels = kinds[turned % 4] + random.integers(0, 80, (side, side, 4)) + scene_pixels(side, side, 4) // 20
    pixels[y + x < side // 3] = 0
    return pixels.astype(np.uint16)


def means(pixels: NDArray[np.uint16], factor: int) -> NDArray[np.uint16]:
    """Blocks of pixels as their mean; one without data has none."""
    side = pixels.shape[0] // factor
    blocks = pixels.reshape(side, factor, side, factor)
    return np.where((blocks == 0).any(axis=(1, 3)), 0, blocks.mean(axis=(1, 3))).astype(np.uint16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return two_layers(8, 3, seed=7)


def expect_exact(scene: Path, bands: str, network: nn.Module, first: Path, out: Path) -> NDArray[np.uint8]:
    """Segment a delivery, and hold COG and GeoPackage against its finest band and against one file of all bands."""
    asked: dict[str, Any] = asked_of("crop", "water", mean=1000.0, std=700.0, dtype="uint16") | {"core": 160}
    export = "cog,geopackage,stac"
    result = segment_image(scene, out / "run", model=network, bands=bands, export=export, objects="none", **asked)
    labels = result.labels.compute()
    with open_source(scene, View(bands=tuple(int(band) for band in seen_bands(scene, bands)))) as source:
        one = write_raster(out / "one.tif", source.read(0, source.levels[0].box), nodata=0)
    alone = segment_image(one, out / "alone", model=network, export="none", objects="none", **asked)
    assert np.array_equal(alone.labels.compute(), labels)
    exports = out / "run" / "exports"
    with rasterio.open(exports / "mask.tif") as cog, rasterio.open(first) as band:
        assert (cog.crs, cog.transform, cog.shape) == ("EPSG:32632", WHERE, band.shape)
        assert np.array_equal(cog.read(1), labels)
        if band.crs is not None:  # a Sentinel-2 band's place stands in its granule's metadata
            assert (cog.crs, cog.transform) == (band.crs, band.transform)
    meta, table = pyogrio.read_arrow(exports / "objects.gpkg")
    shapes = shapely.from_wkb(table.column(meta["geometry_name"] or "geometry").to_pylist())
    assert rasterio.CRS.from_user_input(meta["crs"]) == rasterio.CRS.from_epsg(32632)
    burnt = rasterize(
        list(zip(shapes, table.column("label").to_pylist(), strict=True)), labels.shape, transform=WHERE, dtype="uint8"
    )
    assert np.array_equal(burnt, np.where(labels == 255, 0, labels))
    return labels


def seen_bands(scene: Path, bands: str) -> list[int]:
    with open_source(scene) as source:
        return [source.bands.index(name) for name in bands.split(",")]


def test_a_sentinel_2_scene_in_three_pixel_sizes_lies_on_its_bands(network: nn.Module, tmp_path: Path) -> None:
    pixels = fields()
    bands = {
        "B04": (10, pixels[..., 0]),
        "B08": (10, pixels[..., 3]),
        "B11": (20, means(pixels[..., 1], 2)),
        "B09": (60, means(pixels[..., 2], 6)),
    }
    safe = write_sentinel2(tmp_path, bands)
    (first,) = safe.rglob("*_B04_10m.jp2")
    labels = expect_exact(safe, "B04,B11,B09", network, first, tmp_path)
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    assert np.array_equal(labels == 255, pixels[..., 0] == 0), "no class where no band holds data"


def test_a_landsat_scene_lies_on_its_bands(network: nn.Module, tmp_path: Path) -> None:
    pixels = fields()
    scene = write_landsat(tmp_path, {f"SR_B{band + 2}": pixels[..., band] for band in range(4)})
    (first,) = scene.glob("*_SR_B2.TIF")
    labels = expect_exact(scene, "SR_B4,SR_B3,SR_B5", network, first, tmp_path)
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    assert np.array_equal(labels == 255, pixels[..., 0] == 0)


def test_an_aerial_image_in_four_files_has_its_water(data_dir: Path, tmp_path: Path) -> None:
    year = next((data_dir / "geo" / "naip").glob("*_2010*.tif"))
    split(year, tmp_path / "2010")
    asked: dict[str, Any] = {"model": "water", "core": 256, "export": "none", "progress": False, "executor": "local"}
    one, four = (
        segment_image(scene, tmp_path / f"run{number}", **asked).labels.compute()
        for number, scene in enumerate((year, tmp_path / "2010"))
    )
    assert 0 < (one == 1).sum() < (one == 0).sum()
    assert np.array_equal(one, four)
