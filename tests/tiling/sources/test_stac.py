"""STAC items: their assets as bands, what they say of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from described_scenes import GEOTIFF, asset, write_item
from scenes import cut, scene_pixels, write_raster

from tiling.errors import SourceError
from tiling.source import open_source

PIXELS = scene_pixels(40, 50, 3)


def test_assets_of_one_band_are_the_bands(tmp_path: Path) -> None:
    for band, name in enumerate(("r", "n", "g")):
        write_raster(tmp_path / "assets" / f"{name}.tif", PIXELS[..., band : band + 1])
    (tmp_path / "n.jp2").write_bytes(b"another copy")
    item = write_item(
        tmp_path / "item.json",
        {
            "nir": asset("./assets/n.tif", "B08"),
            "visual": asset("assets/rgb.tif", "B04", "B03", "B02"),
            "red": asset("assets/r.tif", "B04"),
            "nir-jp2": asset("n.jp2", "B08", type="image/jp2"),
            "scl": {"href": "assets/scl.tif", "type": GEOTIFF, "roles": ["data"]},
            "thumbnail": {"href": "a.png", "type": "image/png", "roles": ["thumbnail"]},
        },
    )
    with open_source(item) as scene:
        assert scene.bands == ("nir", "red")
        assert np.array_equal(scene.read(0, scene.levels[0].box), PIXELS[..., [1, 0]])
        before = scene.fingerprint()
    write_raster(tmp_path / "assets" / "r.tif", PIXELS[..., :1] + 1)
    with open_source(item) as scene:
        assert scene.fingerprint() != before


def test_an_item_that_an_api_gave_has_no_suffix(tmp_path: Path) -> None:
    write_raster(tmp_path / "r.tif", PIXELS[..., :1])
    (tmp_path / "items").mkdir()
    write_raster(tmp_path / "items" / "r.tif", PIXELS[..., :1])
    for name in ("S2B_32UQD_20200601_0_L2A", "items/MOD09.A2020153.h18v04"):
        with open_source(write_item(tmp_path / name, {"red": asset("r.tif", "B04")})) as scene:
            assert scene.bands == ("red",)
    with open_source(tmp_path / "items" / "r.tif") as image:
        assert image.format == "geotiff"


def test_an_item_names_the_value_for_no_data_that_its_file_does_not(tmp_path: Path) -> None:
    pixels = PIXELS[..., :1].copy()
    pixels[:7] = 0
    write_raster(tmp_path / "r.tif", pixels)
    for more in ({"raster:bands": [{"nodata": 0}]}, {"bands": [{"nodata": 0}], "eo:bands": []}, {"nodata": 0}):
        with open_source(write_item(tmp_path / "item.json", {"red": asset("r.tif", "B04", **more)})) as scene:
            assert scene.nodata == 0
            scene.close()
            _, held = scene.read_present(0, scene.levels[0].box)
            assert held is not None
            assert np.array_equal(held, pixels != 0)


def test_one_asset_of_several_bands_is_the_image(tmp_path: Path) -> None:
    write_raster(tmp_path / "rgb.tif", PIXELS)
    with open_source(write_item(tmp_path / "item.json", {"image": asset("rgb.tif", "r", "g", "b")})) as scene:
        assert np.array_equal(scene.read(0, scene.levels[0].box), PIXELS)


def test_assets_of_the_same_bands_are_a_mosaic(tmp_path: Path) -> None:
    files = cut(tmp_path / "parts", PIXELS)
    tiles = {file.stem: asset(f"parts/{file.name}", "r", "g", "b") for file in files}
    with open_source(write_item(tmp_path / "item.json", tiles)) as scene:
        assert np.array_equal(scene.read(0, scene.levels[0].box), PIXELS)
    reds = cut(tmp_path / "red", PIXELS[..., :1])
    tiles = {file.stem: asset(f"red/{file.name}", "B04") for file in reds}
    with open_source(write_item(tmp_path / "item.json", tiles)) as scene:
        assert np.array_equal(scene.read(0, scene.levels[0].box), PIXELS[..., :1])


def test_items_that_lead_elsewhere_or_to_nothing_are_refused(tmp_path: Path) -> None:
    item = tmp_path / "inside" / "item.json"
    write_raster(tmp_path / "r.tif", PIXELS[..., :1])
    write_raster(tmp_path / "inside" / "rgb.tif", PIXELS)
    for assets, message in (
        ({"red": asset("file:///etc/passwd", "B04")}, "is no file beside it"),
        ({"red": asset("s3://bucket/r.tif", "B04")}, "is no file beside it"),
        ({"red": asset("../r.tif", "B04")}, "outside of its folder"),
        ({"red": asset("gone.tif", "B04")}, "is missing"),
        ({"red": asset("item.json", "B04")}, "names itself"),
        ({"red": asset("rgb.tif", "B04")}, "has 3 bands"),
        ({"a": asset("rgb.tif", "r", "g"), "b": asset("rgb.tif", "r", "b")}, "nothing says which"),
        ({"a": asset("rgb.tif", "r"), "b": asset("rgb.tif", "r", nodata=0)}, "different values for no data"),
        ({"red": asset("../r.tif", "B04", **{"raster:bands": [{"scale": 0}]})}, "no number that scales"),
        ({"red": asset("../r.tif", "B04", **{"raster:bands": [{"scale": 10**400}]})}, "no number that scales"),
        ({"red": asset("rgb.tif", "B04", nodata=10**400)}, "no number of a raster"),
        ({"red": asset("rgb.tif", "B04", nodata=[0])}, "no number of a raster"),
        ({}, "none of one"),
        ({"red": {"href": 5}}, "none of one"),
    ):
        with pytest.raises(SourceError, match=message):
            open_source(write_item(item, assets))
    item.write_text('{"stac_version": ')
    with pytest.raises(SourceError, match="can't be parsed"):
        open_source(item)
    with pytest.raises(SourceError, match="is no STAC item"):
        open_source(write_item(item, {}, type="Collection"))
    item.write_text("{}")
    with pytest.raises(SourceError, match="not a supported image"):
        open_source(item)
