"""Redirects: an address on the web leads to its own server, and to public ones by https, whoever asks for what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import refusals
from described_scenes import asset, write_item
from ome_zarrs import write as write_zarr
from scenes import scene_pixels, write_raster
from web_server import Web, serving

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import open_source
from tiling.storage.redirects import objection, redirected

PIXELS = scene_pixels(150, 170, 1)
PUBLIC = "https://example.org"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    write_raster(tmp_path / "web" / "deep" / "r.tif", PIXELS, tiled=True, blockxsize=64, blockysize=64)
    write_item(tmp_path / "web" / "deep" / "item.json", {"red": asset("r.tif", "B04")})
    write_zarr(tmp_path / "web" / "deep" / "image.ome.zarr", "cyx", shards=(1, 128, 128))
    with serving(tmp_path / "web") as server:
        yield server


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Web]:
    """Another server, of this machine, with all that the first one has."""
    with serving(tmp_path / "web") as server:
        yield server


def whole(address: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    with open_source(address) as source:
        return source.read(0, source.levels[0].box)


@pytest.mark.parametrize(
    ("root", "target", "objects"),
    [
        (PUBLIC, PUBLIC, ""),
        (PUBLIC, "https://cdn.example.org:8443", ""),
        ("http://10.0.0.5:81", "http://10.0.0.5:81", ""),
        ("http://10.0.0.5", "https://10.0.0.5", ""),
        ("http://10.0.0.5", "https://10.0.0.6", "which is not public"),
        ("http://10.0.0.5:81", "http://10.0.0.5:22", "which is not public"),
        (PUBLIC, "http://example.org", "without https"),
        (PUBLIC, "https://localhost", "which is not public"),
        (PUBLIC, "https://LOCALHOST.", "which is not public"),
        (PUBLIC, "https://router", "which is not public"),
        (PUBLIC, "https://metadata.google.internal", "which is not public"),
        (PUBLIC, "https://printer.local", "which is not public"),
        (PUBLIC, "https://169.254.169.254", "which is not public"),
        (PUBLIC, "https://[::ffff:127.0.0.1]", "which is not public"),
        (PUBLIC, "https://[fd00::1]", "which is not public"),
        (PUBLIC, "https://0x7f.1", "which is not public"),
        (PUBLIC, "https://2130706433", "which is not public"),
    ],
)
def test_an_address_leads_to_its_own_server_and_to_public_ones(root: str, target: str, objects: str) -> None:
    assert objection(root, target) == objects


def test_a_redirect_keeps_what_its_address_says() -> None:
    for location, target in {
        "../b c.tif": f"{PUBLIC}/b%20c.tif",
        "/b.tif?sig=a%2Fb&x=ü#part": f"{PUBLIC}/b.tif?sig=a%2Fb&x=%C3%BC",
        "//cdn.example.org/b.tif": "https://cdn.example.org/b.tif",
        "https://cdn.example.org": "https://cdn.example.org",
    }.items():
        assert redirected(f"{PUBLIC}/a/a.tif?old=1", location, "a.tif") == target


def test_a_redirect_on_the_same_server_is_followed(web: Web, tmp_path: Path) -> None:
    web.redirects.update(
        {
            "/r.tif": "/moved/r.tif",
            "/moved/r.tif": f"{web.url}/deep/r.tif?signature=canary",
            "/here.json": "item.json",
        }
    )
    write_item(tmp_path / "web" / "item.json", {"red": asset("r.tif", "B04")})
    for address in ("r.tif", "item.json", "here.json"):
        assert np.array_equal(whole(f"{web.url}/{address}"), PIXELS)
    with open_source(f"{web.url}/r.tif") as source, open_source(f"{web.url}/deep/r.tif") as plain:
        assert source.fingerprint() == plain.fingerprint()
        assert "canary" not in f"{source.describe()} {source.version()}"


ELSEWHERE = {
    "http://127.0.0.1:{port}/deep/{file}": "to another server, http://127.0.0.1:{port}, which is not public",
    "//localhost:{port}/deep/{file}": "to another server, http://localhost:{port}, which is not public",
    "https://127.0.0.1:{port}/deep/{file}": "to another server, https://127.0.0.1:{port}, which is not public",
    "https://10.0.0.1/{file}": "to another server, https://10.0.0.1, which is not public",
    "https://[::1]:{port}/{file}": "to another server, https://[::1]:{port}, which is not public",
    "http://example.org/{file}?sig=canary": "to another server, http://example.org, without https",
    "file:///etc/passwd": "to 'file', and a server may to http and https alone",
    "s3://bucket/{file}": "to 's3', and a server may to http and https alone",
    "data:image/tiff;base64,SUkq": "to 'data', and a server may to http and https alone",
    "https://me:canary@example.org/{file}": "to https://example.org with a user or password",
    "https://example.org:99999/{file}": "to an address that is malformed",
    "https://[oops/{file}": "to an address that is malformed",
}


@pytest.mark.parametrize("method", ["", "GET "])
@pytest.mark.parametrize("file", ["r.tif", "item.json", "image.ome.zarr/zarr.json"])
def test_a_redirect_elsewhere_is_one_line_and_nobody_is_asked(web: Web, other: Web, file: str, method: str) -> None:
    """Of an image, an item and an OME-Zarr, and also by a server that answers HEAD as if it held them itself."""
    name = file.partition("/")[0]
    for location, message in ELSEWHERE.items():
        asked = {"port": other.url.rpartition(":")[2], "file": file}
        web.redirects[f"{method}/deep/{file}"] = location.format(**asked)
        expect_refused(f"{web.url}/deep/{name}", f"is redirected {message.format(**asked)}")
    web.redirects.clear()
    web.redirects.update({f"{method}/deep/{file}": "/a", "/a": "/b", "/b": "/a"})
    expect_refused(f"{web.url}/deep/{name}", "is redirected more than 10 times; check the URL")
    assert other.asked == []


def test_an_asset_that_is_redirected_elsewhere_is_one_line(web: Web, other: Web) -> None:
    web.redirects["/deep/r.tif"] = f"{other.url}/deep/r.tif"
    expect_refused(f"{web.url}/deep/item.json", "r.tif: is redirected to another server")
    assert other.asked == []


def test_a_server_that_leads_away_while_it_is_read_is_refused(web: Web, other: Web) -> None:
    with open_source(f"{web.url}/deep/r.tif") as source:
        web.redirects["/deep/r.tif"] = f"{other.url}/deep/r.tif"
        with pytest.raises(SourceError, match="is redirected to another server"):
            source.read(0, Box(100, 100, 150, 170))
    assert other.asked == []


def test_what_is_missing_beside_an_image_may_lead_anywhere(web: Web, other: Web) -> None:
    """As by a server that sends whoever asks for what isn't there to a page of its own."""
    beside = ("tfw", "tifw", "wld", "tif.aux.xml", "tif.msk", "tif.ovr")
    web.redirects.update({f"/deep/r.{each}": f"{other.url}/login" for each in beside})
    assert np.array_equal(whole(f"{web.url}/deep/r.tif"), PIXELS)
    assert other.asked == []


def expect_refused(address: str, message: str) -> None:
    refusals.expect_refused(lambda: whole(address), message)
