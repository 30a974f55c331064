"""Objects on web servers: proxies, certificates, faults and ranges of a server that is a real one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from certificates import certificate
from described_scenes import asset, write_item
from object_store import BUCKET, boto_client, faulty_proxy
from scenes import scene_pixels, write_raster
from web_server import Web, serving

from tiling.errors import AccessError, StorageError, TilingError
from tiling.source import open_source
from tiling.storage import connection
from tiling.storage.object_path import ObjectPath
from tiling.storage.web_connection import ask

PIXELS = scene_pixels(150, 170, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_raster(tmp_path / "web" / "deep" / "r.tif", PIXELS, tiled=True, blockxsize=64, blockysize=64)
    write_item(tmp_path / "web" / "deep" / "item.json", {"red": asset("r.tif", "B04")})
    return tmp_path / "web"


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    with serving(folder) as server:
        yield server


def whole(address: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    with open_source(address) as source:
        return source.read(0, source.levels[0].box)


def test_https_is_read_with_a_certificate_that_the_environment_trusts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    authority, context = certificate(tmp_path)
    with serving(folder, context) as web:
        assert web.url.startswith("https://")
        with pytest.raises(TilingError, match=r"deep/item\.json: the server's certificate is not valid \(self-signed"):
            whole(f"{web.url}/deep/item.json")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert np.array_equal(whole(f"{web.url}/deep/item.json"), PIXELS)
        web.redirects["/deep/r.tif"] = f"{web.url.replace('https:', 'http:')}/deep/r.tif"
        with pytest.raises(TilingError, match="is redirected to another server, http://"):
            whole(f"{web.url}/deep/item.json")


def test_a_proxy_of_the_environment_stands_before_the_server(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests answers whole addresses too, as a proxy is asked for them."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("http_proxy", web.url.replace("//", "//me:secret@"))
    assert np.array_equal(whole("http://scenes.test/deep/item.json"), PIXELS)
    assert ("GET", "/deep/r.tif") in web.asked
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert np.array_equal(whole(f"{web.url}/deep/item.json"), PIXELS)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(TilingError, match="names a proxy of socks5://, and one of http:// is spoken to"):
        whole("http://maps.test/deep/item.json")


@pytest.mark.parametrize("fault", ["503", "500", "cut", "mute"])
def test_faults_of_a_web_server_within_the_bound_change_nothing(
    s3: str, tmp_path: Path, few_retries: None, fault: str
) -> None:
    file = write_raster(tmp_path / "r.tif", PIXELS, tiled=True, blockxsize=64, blockysize=64)
    boto_client(s3).put_object(Bucket=BUCKET, Key="r.tif", Body=file.read_bytes(), ACL="public-read")

    def every_second(method: str, path: str, count: int) -> str | None:
        return fault if count % 2 and method == "GET" else None

    with faulty_proxy(s3, every_second) as script:
        address = f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/r.tif"
        assert np.array_equal(whole(address), PIXELS)
    assert fault in script.faults
    with (
        faulty_proxy(s3, lambda method, path, count: "503"),
        pytest.raises(StorageError, match=r"the store failed \(503 Service Unavailable\), also after retries"),
    ):
        open_source(f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/r.tif")
    with (
        faulty_proxy(s3, lambda method, path, count: "403"),
        pytest.raises(TilingError, match=r"refuses access \(403 Forbidden\); check the URL"),
    ):
        open_source(f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/r.tif")


def test_bytes_that_trickle_are_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of headers: a byte now and then is no silence."""
    monkeypatch.setattr(connection, "SILENCE_SECONDS", 0.05)
    for start in (b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"):
        with trickling(start) as address, pytest.raises(TimeoutError):
            ask("GET", address, {}, 1_000_000)
    with (
        trickling(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n") as address,
        pytest.raises(OSError, match="100000"),
    ):
        ask("GET", address, {}, 99_999)


@contextmanager
def trickling(start: bytes) -> Generator[str]:
    """A server that sends a beginning, and then a byte every hundredth of a second."""
    stopped = threading.Event()

    def serve() -> None:
        taken, _ = listening.accept()
        with taken:
            taken.recv(4096)
            taken.sendall(start)
            while not stopped.wait(0.01):
                try:
                    taken.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        finally:
            stopped.set()
            thread.join()


def test_ranges_end_with_the_object(web: Web) -> None:
    place = ObjectPath.parse(f"{web.url}/deep/r.tif")
    data = place.read_bytes()
    assert place.read_range(10, 20, None) == data[10:30]
    web.redirects["/deep/r.tif"] = "file:///etc/passwd"
    with pytest.raises(AccessError):
        place.facts()
    web.redirects.clear()
    assert place.facts().size_bytes == len(data)
    assert place.read_range(len(data) - 5, 100, None) == data[-5:]
    assert place.read_range(len(data), 100, None) == b""


def test_a_web_server_is_not_asked_what_it_holds(web: Web) -> None:
    place = ObjectPath.parse(f"{web.url}/deep")
    for ask_for in (place.is_dir, lambda: list(place.iterdir()), lambda: list(place.descendants())):
        with pytest.raises(StorageError, match=r"deep: a web server doesn't say what lies there; give single files"):
            ask_for()
    assert web.asked == []
