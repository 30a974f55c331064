"""Runs of scenes of several files: the labels of the one file, resume, verification, and a file that changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from described_scenes import asset, mosaic, write_item
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from scene_network import PIXELS, asked_of, two_layers
from scenes import WHERE, cut, write_raster
from torch import nn
from web_server import serving

from flows.api.segment_image import segment_image
from tiling.errors import TilingError

ASKED = asked_of("cell")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return two_layers(6, 2, seed=3)


def test_a_scene_of_files_has_the_labels_of_the_one_file(network: nn.Module, tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", PIXELS, nodata=0)
    files = cut(tmp_path / "parts", PIXELS, nodata=0)
    for band, name in enumerate(("red", "green", "blue")):
        write_raster(tmp_path / f"{name}.tif", PIXELS[..., band : band + 1], nodata=0)
    expected = segment_image(one, tmp_path / "one", model=network, export="none", **ASKED).labels.compute()
    assert set(np.unique(expected)) == {0, 1, 255}
    assert (expected[:, 150:] == 255).all()
    bands = tmp_path / "red=red.tif,green=green.tif,blue=blue.tif"
    vrt = mosaic(tmp_path / "parts", files, 3, "uint8", "0")
    item = write_item(tmp_path / "item.json", {file.stem: asset(f"parts/{file.name}", *"rgb") for file in files})
    for number, scene in enumerate((tmp_path / "parts", bands, vrt, item)):
        out = tmp_path / f"run{number}"
        result = segment_image(scene, out, model=network, export="cog" if number == 0 else "none", **ASKED)
        assert np.array_equal(result.labels.compute(), expected)
        assert result.run.card.image.path == str(scene)
        if number == 0:
            assert segment_image(scene, out, model=network, export="none", **ASKED).complete
    with rasterio.open(next((tmp_path / "run0" / "exports").glob("*.tif"))) as cog:
        assert (cog.crs, cog.transform) == ("EPSG:32632", WHERE)
        assert np.array_equal(cog.read(1), expected)
    moved = np.roll(PIXELS, 3, axis=0)
    cut(tmp_path / "parts", moved, nodata=0)
    with pytest.raises(TilingError, match=r"another|differ"):
        segment_image(tmp_path / "parts", tmp_path / "run0", model=network, export="none", **ASKED)
    assert len(files) == 9


def test_a_run_on_the_grid_of_another_crs_lies_there(network: nn.Module, tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", PIXELS, nodata=0)
    asked: dict[str, Any] = {"crs": "EPSG:3857", **ASKED}
    result = segment_image(one, tmp_path / "run", model=network, export="stac", **asked)
    assert result.run.card.notes["resampled"] == "onto the scene's grid: red, green, blue bilinear"
    with (
        rasterio.open(next((tmp_path / "run" / "exports").glob("*.tif"))) as cog,
        rasterio.open(one) as file,
        WarpedVRT(file, crs="EPSG:3857", resampling=Resampling.bilinear, tolerance=0) as theirs,
    ):
        assert (cog.crs, cog.transform, cog.shape) == (theirs.crs, theirs.transform, theirs.shape)
        assert np.array_equal(cog.read(1) == 255, theirs.read_masks(1) == 0)
        assert np.array_equal(cog.read(1), result.labels.compute())
    item = json.loads((tmp_path / "run" / "exports" / "item.json").read_bytes())
    assert item["properties"]["proj:code"] == "EPSG:3857"
    assert segment_image(one, tmp_path / "run", model=network, export="none", **asked).complete
    with pytest.raises(TilingError, match="view"):
        segment_image(one, tmp_path / "run", model=network, export="none", **ASKED)


def test_a_run_of_an_item_on_the_web_has_the_labels_of_its_files(network: nn.Module, tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", PIXELS, nodata=0)
    expected = segment_image(one, tmp_path / "one", model=network, export="none", **ASKED).labels.compute()
    assets: dict[str, Any] = {}
    for band, name in enumerate(("red", "green", "blue")):
        write_raster(tmp_path / "web" / f"{name}.tif", PIXELS[..., band : band + 1], nodata=0)
        assets[name] = asset(f"{name}.tif", name)
    write_item(tmp_path / "web" / "item.json", assets, properties={"datetime": "2020-06-01T10:10:31Z"})
    out = tmp_path / "run"
    with serving(tmp_path / "web") as web:
        url = f"{web.url}/item.json"
        result = segment_image(url, out, model=network, export="stac", **ASKED)
        assert np.array_equal(result.labels.compute(), expected)
        assert result.run.card.image.path == url
        item = json.loads((out / "exports" / "item.json").read_bytes())
        assert item["properties"]["datetime"] == "2020-06-01T10:10:31Z"
        assert item["links"] == [{"rel": "derived_from", "href": url, "type": "application/geo+json"}]
        assert segment_image(url, out, model=network, export="none", **ASKED).complete
        write_raster(tmp_path / "web" / "blue.tif", PIXELS[::-1, :, 2:], nodata=0)
        with pytest.raises(TilingError, match=r"another|differ"):
            segment_image(url, out, model=network, export="none", **ASKED)
