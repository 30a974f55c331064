"""STAC items on a web server, and items with files there: read as beside their files, and led nowhere else."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refusals
from described_scenes import asset, write_item
from numpy.typing import NDArray
from scenes import cut, scene_pixels, write_raster
from web_server import Web, serving

from tiling.archives.slide import file_version
from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import ImageSource, open_source
from tiling.storage.place import place_of
from tiling.view import View

PIXELS = scene_pixels(150, 170, 3)
PIXELS[:, 120:] = 0
TILED: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": 0}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A server of three bands in a folder beside where items go."""
    for band, name in enumerate(("r", "g", "n")):
        write_raster(tmp_path / "web" / "assets" / f"{name}.tif", PIXELS[..., band : band + 1], **TILED)
    with serving(tmp_path / "web") as server:
        yield server


def whole(source: ImageSource) -> NDArray[Any]:
    return source.read(0, source.levels[0].box)


def bands_of(web: Web) -> dict[str, Any]:
    """Three assets, each named in another way."""
    return {
        "red": asset("./assets/r.tif", "B04"),
        "green": asset("/assets/g.tif", "B03"),
        "nir": asset(f"{web.url}/assets/n.tif", "B08"),
    }


def test_an_item_on_the_web_is_the_item_beside_its_files(web: Web, tmp_path: Path) -> None:
    write_item(tmp_path / "web" / "item.json", bands_of(web))
    here = {name: asset(f"assets/{name[0]}.tif", "b") for name in ("red", "green", "nir")}
    local = write_item(
        tmp_path / "web" / "here.json", {name: {**each, "eo:bands": [{}]} for name, each in here.items()}
    )
    with open_source(f"{web.url}/item.json") as scene, open_source(local) as expected:
        assert (scene.format, scene.bands, scene.nodata) == ("scene", ("red", "green", "nir"), 0)
        assert (scene.levels, scene.georeference) == (expected.levels, expected.georeference)
        assert np.array_equal(whole(scene), PIXELS)
        _, held = scene.read_present(0, scene.levels[0].box)
        assert held is not None
        assert np.array_equal(held.any(-1), PIXELS.any(-1))
        assert scene.fingerprint().startswith("objects ")
        again: ImageSource = pickle.loads(pickle.dumps(scene))
        with again:
            assert np.array_equal(again.read(0, Box(10, 20, 40, 90)), PIXELS[10:40, 20:90])
        asked = len(web.asked)
        with scene.viewed(View(bands=(1,))) as green:
            assert np.array_equal(green.read(0, Box(0, 0, 40, 40)), PIXELS[:40, :40, 1:2])
        assert {path for _, path in web.asked[asked:]} <= {"/assets/g.tif"}, "other bands are left alone"


def test_an_item_of_an_api_has_no_suffix(web: Web, tmp_path: Path) -> None:
    """Its address ends with its name, which may hold dots; it is made when it is asked for, and by GET alone."""
    with open_source(tmp_path / "web" / "assets" / "r.tif") as one:
        expected = one.georeference
    for made in (False, True):
        for name in ("S2B_32UQD_20200601_0_L2A", "MOD09.A2020153.h18v04"):
            item = tmp_path / "web" / "collections" / "c" / "items" / name
            item.parent.mkdir(parents=True, exist_ok=True)
            write_item(item, {"red": asset("../../../assets/r.tif", "B04"), "nir": asset("/assets/n.tif", "B08")})
            url = f"{web.url}/collections/c/items/{name}"
            web.made.clear()
            web.made.update({f"/collections/c/items/{name}"} if made else ())
            with open_source(url) as scene:
                assert (scene.format, scene.bands, scene.georeference) == ("scene", ("red", "nir"), expected)
                assert np.array_equal(whole(scene), PIXELS[..., [0, 2]])
                before, version = scene.fingerprint(), scene.version()
                assert scene.current_version() == version
            known = file_version(place_of(url))
            assert known is not None
            write_item(item, {"nir": asset("/assets/n.tif", "B08"), "red": asset("/assets/r.tif", "B04")})
            assert file_version(place_of(url)) != known
            with open_source(url) as scene:
                assert scene.fingerprint() != before
            with open_source(url, View(crs="EPSG:3857")) as scene:
                assert scene.georeference is not None
    (tmp_path / "web" / "page").write_text("<!DOCTYPE html><p>Sign in</p>")
    expect_refused(f"{web.url}/page", "not a supported image")
    (tmp_path / "web" / "data").write_text('{"a": 1}')
    expect_refused(f"{web.url}/data", "not a supported image")
    expect_refused(f"{web.url}/gone", "gone: there is no such object; check the URL")


def test_an_image_without_a_suffix_stays_one(web: Web, tmp_path: Path) -> None:
    (tmp_path / "web" / "image").write_bytes((tmp_path / "web" / "assets" / "r.tif").read_bytes())
    with open_source(f"{web.url}/image") as source:
        assert source.format != "scene"
        assert np.array_equal(whole(source), PIXELS[..., :1])


def test_an_item_in_a_file_may_have_its_files_on_the_web(web: Web, tmp_path: Path) -> None:
    write_raster(tmp_path / "r.tif", PIXELS[..., :1], **TILED)
    item = write_item(
        tmp_path / "item.json", {"red": asset("r.tif", "a"), "nir": asset(f"{web.url}/assets/n.tif", "b")}
    )
    with open_source(item) as scene:
        assert np.array_equal(whole(scene), PIXELS[..., [0, 2]])
        before, version = scene.fingerprint(), scene.version()
        assert scene.current_version() == version
    write_raster(tmp_path / "web" / "assets" / "n.tif", PIXELS[..., 2:] + 1, **TILED)
    with open_source(item) as scene:
        assert scene.fingerprint() != before
        assert scene.version() != version


def test_files_on_the_web_are_a_mosaic_and_lie_in_another_crs(web: Web, tmp_path: Path) -> None:
    files = cut(tmp_path / "web" / "parts", PIXELS, 2, 3, nodata=0)
    write_item(tmp_path / "web" / "item.json", {each.stem: asset(f"parts/{each.name}", *"rgb") for each in files})
    with open_source(f"{web.url}/item.json") as scene, open_source(tmp_path / "web" / "parts") as expected:
        assert np.array_equal(whole(scene), PIXELS)
        assert scene.georeference == expected.georeference
    view = View(crs="EPSG:3857")
    with (
        open_source(f"{web.url}/item.json", view) as scene,
        open_source(tmp_path / "web" / "item.json", view) as expected,
    ):
        assert np.array_equal(whole(scene), whole(expected))


def test_a_file_that_changes_on_the_web_is_another_scene(web: Web, tmp_path: Path) -> None:
    write_item(tmp_path / "web" / "item.json", bands_of(web))
    item = place_of(f"{web.url}/item.json")
    version = file_version(item)
    with open_source(item) as scene:
        before = scene.fingerprint()
        write_raster(tmp_path / "web" / "assets" / "n.tif", PIXELS[::-1, :, 2:], **TILED)
        with pytest.raises(SourceError, match="changed"):
            whole(scene)
    assert file_version(item) != version
    with open_source(item) as scene:
        assert scene.fingerprint() != before
    (tmp_path / "web" / "assets" / "n.tif").unlink()
    assert file_version(item) is None


def test_what_an_item_on_the_web_may_not_lead_to_is_one_line(web: Web, tmp_path: Path) -> None:
    item = tmp_path / "web" / "deep" / "item.json"
    item.parent.mkdir()
    (tmp_path / "web" / "page.tif").write_text("<!DOCTYPE html><p>Sign in</p>")
    (tmp_path / "web" / "empty.tif").write_bytes(b"")
    (tmp_path / "web" / "cut.tif").write_bytes((tmp_path / "web" / "assets" / "r.tif").read_bytes()[:100])
    for href, message in {
        "../assets/gone.tif": "gone.tif: there is no such object; check the URL",
        "../../../../etc/passwd": "/etc/passwd: there is no such object",
        "../page.tif": "page.tif: not a supported image",
        "../empty.tif": "the file is empty",
        "../cut.tif": "cut.tif",
        "item.json": "it names itself",
        f"{web.url}/deep/item.json": "it names itself",
        "file:///etc/passwd": "leads to 'file', and an item at a URL to https and http alone",
        "s3://bucket/r.tif": "leads to 's3'",
        "data:image/tiff;base64,SUkq": "leads to 'data'",
        "http://127.0.0.1:9/r.tif": "another server, which is not public",
        "https://localhost/r.tif": "which is not public",
        "https://169.254.169.254/r.tif": "which is not public",
        "https://[::1]/r.tif": "which is not public",
        "https://10.1/r.tif": "which is not public",
        "https://0x7f000001/r.tif": "which is not public",
        "http://example.org/r.tif": "another server, without https",
        "https://example.org:99999/r.tif": "malformed",
        "https://[oops/r.tif": "malformed",
        "https://somebody:canary@example.org/r.tif": "holds a user or password",
        "../assets/r.tif?signature=canary": "holds a query",
        f"{web.url}/a/%2e%2e/r.tif": "climbs out of a folder",
    }.items():
        write_item(item, {"red": asset(href, "B04", type="image/tiff; application=geotiff")})
        expect_refused(f"{web.url}/deep/item.json", message)


def test_items_on_the_web_that_are_none_are_one_line(web: Web, tmp_path: Path) -> None:
    expect_refused(f"{web.url}/gone.json", "gone.json: there is no such object; check the URL")
    item = tmp_path / "web" / "item.json"
    for text, message in {
        "<!DOCTYPE html><p>Sign in</p>": "not a supported image",
        '{"stac_version": ': "can't be parsed",
        '{"stac_version": "1.0.0", "type": "Collection"}': "is no STAC item",
        '{"stac_version": "1.0.0", "type": "Feature", "assets": {}}': "none of one",
    }.items():
        item.write_text(text)
        expect_refused(f"{web.url}/item.json", message)
    bands = {name: asset(f"{web.url}/assets/{name[0]}.tif", "b") for name in ("red", "green")}
    write_item(item, {"red": bands["red"], "green": {**bands["green"], "href": "file:///etc/passwd"}})
    expect_refused(item, "is no file beside it")


def expect_refused(item: str | Path, message: str) -> None:
    refusals.expect_refused(lambda: open_source(item), message)
