"""STAC items in a bucket: read as beside their files, and led to no other bucket and to nobody's own servers."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described_scenes import asset, write_item
from numpy.typing import NDArray
from object_store import BUCKET, boto_client, place
from refusals import expect_refused
from scenes import cut, scene_pixels, write_raster

from tiling.archives.listing import find_slides
from tiling.archives.slide import file_version
from tiling.errors import TilingError
from tiling.geometry import Box
from tiling.source import ImageSource, open_source

PIXELS = scene_pixels(150, 170, 3)
PIXELS[:, 120:] = 0
TILED: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": 0}
NAMES = ("red band", "green+", "nir")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """The same scene on a disk."""
    for band, name in enumerate(NAMES):
        write_raster(tmp_path / "scene" / "assets" / f"{name}.tif", PIXELS[..., band : band + 1], **TILED)
    return write_item(
        tmp_path / "scene" / "item.json",
        {name: asset(f"assets/{name}.tif", "b", **{"eo:bands": [{}]}) for name in NAMES},
    )


def put(file: Path, name: str) -> str:
    place(name).write_bytes(file.read_bytes())
    return str(place(name))


def put_item(name: str, assets: dict[str, Any]) -> str:
    text = json.dumps({"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": assets})
    place(name).write_bytes(text.encode())
    return str(place(name))


def whole(source: ImageSource) -> NDArray[Any]:
    return source.read(0, source.levels[0].box)


def test_an_item_in_a_bucket_is_the_item_beside_its_files(s3: str, local: Path) -> None:
    for name in NAMES:
        put(local.parent / "assets" / f"{name}.tif", f"one/assets/{name}.tif")
    hrefs = ("./assets/red band.tif", f"s3://{BUCKET}/one/assets/green+.tif", "../one/assets/nir.tif")
    url = put_item(
        "one/item.json", {name: asset(href, "b", **{"eo:bands": [{}]}) for name, href in zip(NAMES, hrefs, strict=True)}
    )
    with open_source(url) as scene, open_source(local) as expected:
        assert (scene.format, scene.bands, scene.nodata) == ("scene", NAMES, 0)
        assert (scene.levels, scene.georeference) == (expected.levels, expected.georeference)
        assert np.array_equal(whole(scene), PIXELS)
        assert scene.fingerprint().startswith("objects ")
        again: ImageSource = pickle.loads(pickle.dumps(scene))
        with again:
            assert np.array_equal(again.read(0, Box(10, 20, 40, 90)), PIXELS[10:40, 20:90])
        before, listed = scene.fingerprint(), file_version(place("one/item.json"))
    write_raster(local.parent / "assets" / "nir.tif", PIXELS[..., 2:] + 1, **TILED)
    put(local.parent / "assets" / "nir.tif", "one/assets/nir.tif")
    with open_source(url) as scene:
        assert scene.fingerprint() != before
    assert file_version(place("one/item.json")) not in {None, listed}


def test_files_in_a_bucket_are_a_mosaic(s3: str, tmp_path: Path) -> None:
    files = cut(tmp_path / "parts", PIXELS, 2, 3, nodata=0)
    for file in files:
        put(file, f"two/parts/{file.name}")
    url = put_item("two/item.json", {file.stem: asset(f"parts/{file.name}", *"rgb") for file in files})
    with open_source(url) as scene:
        assert np.array_equal(whole(scene), PIXELS)


def test_items_in_a_bucket_are_slides_where_a_glob_names_them(s3: str, local: Path, tmp_path: Path) -> None:
    put(local.parent / "assets" / "nir.tif", "three/nir.tif")
    put_item("three/a.json", {"nir": asset("nir.tif", "b")})
    put_item("three/b.json", {"nir": asset("gone.tif", "b")})
    put_item("three/items/S2B.0", {"nir": asset("../nir.tif", "b")})
    (third,) = find_slides(f"s3://{BUCKET}/three/items/*", tmp_path)
    assert third.file_version == file_version(place("three/items/S2B.0")) is not None
    with open_source(f"s3://{BUCKET}/three/items/S2B.0") as scene:
        assert (scene.format, scene.bands) == ("scene", ("nir",))
    first, second = find_slides(f"s3://{BUCKET}/three/*.json", tmp_path)
    assert first.file_version == file_version(place("three/a.json")) is not None
    assert first.refused is None
    assert second.refused == "a file that it names is missing; restore it, or write the item again"
    assert [slide.name for slide in find_slides(f"s3://{BUCKET}/three", tmp_path)] == ["nir.tif"]


def test_what_an_item_in_a_bucket_may_not_lead_to_is_one_line(s3: str, local: Path) -> None:
    boto_client(s3).create_bucket(Bucket="another")
    put(local.parent / "assets" / "nir.tif", "four/nir.tif")
    for href, message in {
        "gone.tif": f"s3://{BUCKET}/four/gone.tif: there is no such object",
        "../../../../etc/passwd": f"s3://{BUCKET}/etc/passwd: there is no such object",
        "/etc/passwd": f"s3://{BUCKET}/etc/passwd: there is no such object",
        "item.json": "it names itself",
        f"s3://{BUCKET}/four/item.json": "it names itself",
        "s3://another/r.tif": "lies in another bucket",
        "//another/r.tif": "lies in another bucket",
        f"s3://{BUCKET}/a/../b.tif": "climbs out of a folder",
        "gs://bucket/r.tif": "leads to 'gs', and an item in a bucket to that bucket and to https alone",
        "file:///etc/passwd": "leads to 'file'",
        f"{s3}/{BUCKET}/four/nir.tif": "another server, which is not public",
        "https://169.254.169.254/r.tif": "another server, which is not public",
        "http://example.org/r.tif": "another server, without https",
        "nir.tif?versionId=canary": "holds a query",
        "s3://me:canary@another/r.tif": "holds a user or password",
    }.items():
        url = put_item("four/item.json", {"nir": asset(href, "b")})
        expect_refused(partial(open_source, url), message)
    place("four/item.json").write_bytes(b'{"stac_version": ')
    with pytest.raises(TilingError, match="can't be parsed"):
        open_source(f"s3://{BUCKET}/four/item.json")
    with pytest.raises(TilingError, match="there is no such object"):
        open_source(f"s3://{BUCKET}/four/none.json")
