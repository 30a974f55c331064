"""Names to which a server leads stand for public addresses alone, whatever they stand for a moment later."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refusals
from certificates import certificate
from described_scenes import asset, write_item
from scenes import scene_pixels, write_raster
from web_server import Web, serving

from tiling.source import open_source

PIXELS = scene_pixels(150, 170, 1)
PUBLIC, NAME = "93.184.216.34", "scenes.example.org"


@dataclass
class Network:
    """A resolver by a script, the last of whose answers stays, and a route from a public address to this machine."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict[str, list[list[str]]])
    looked_up: list[str] = field(default_factory=list[str])
    connected: list[str] = field(default_factory=list[str])


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found, look_up, connect = Network(), socket.getaddrinfo, socket.create_connection

    def scripted(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host not in found.answers:
            return look_up(host, port, *more, **named)
        found.looked_up.append(host)
        answers = found.answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [each for address in addresses for each in look_up(address, port, *more, **named)]

    def routed(at: tuple[str, int], *more: Any, **named: Any) -> socket.socket:
        found.connected.append(at[0])
        return connect(("127.0.0.1" if at[0] == PUBLIC else at[0], at[1]), *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", scripted)
    monkeypatch.setattr(socket, "create_connection", routed)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_raster(tmp_path / "web" / "r.tif", PIXELS, tiled=True, blockxsize=64, blockysize=64)
    return tmp_path / "web"


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    with serving(folder) as server:
        yield server


@pytest.fixture
def other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where another server is by its name, with a certificate for that."""
    authority, context = certificate(tmp_path, NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with serving(folder, context) as server:
        yield server.url.replace("127.0.0.1", NAME)


def whole(address: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    with open_source(address) as source:
        return source.read(0, source.levels[0].box)


INNER = (
    ["127.0.0.1"],
    ["10.0.0.1"],
    ["169.254.169.254"],
    ["100.64.0.1"],
    ["0.0.0.0"],
    ["::1"],
    ["fd00::1"],
    ["fe80::1"],
    ["::ffff:127.0.0.1"],
    ["64:ff9b::7f00:1"],
    ["2002:7f00:1::"],
    [PUBLIC, "127.0.0.1"],
)


def test_a_name_that_stands_for_an_inner_address_is_one_line_and_nobody_is_asked(
    web: Web, folder: Path, other: str, network: Network
) -> None:
    web.redirects["/moved.tif"] = f"{other}/r.tif"
    write_item(folder / "item.json", {"red": asset(f"{other}/r.tif", "B04")})
    for addresses in INNER:
        network.answers[NAME] = [addresses]
        tail = f"another server, {other}, whose name stands for {addresses[-1]}, which is not public"
        expect_refused(f"{web.url}/moved.tif", f"{web.url}/moved.tif: is redirected to {tail}")
        expect_refused(f"{web.url}/item.json", f"{other}/r.tif: lies on {tail}")
    assert len(network.looked_up) == 2 * len(INNER), "each once, without retries"
    assert network.connected == ["127.0.0.1"], "to the first server alone"


def test_a_name_is_connected_to_as_it_was_looked_up(web: Web, folder: Path, other: str, network: Network) -> None:
    """Rebinding: a name that stands for a public address, and for this machine when it is asked for again."""
    web.redirects["/moved.tif"] = f"{other}/r.tif"
    network.answers[NAME] = [[PUBLIC], ["127.0.0.1"]]
    assert np.array_equal(whole(f"{web.url}/moved.tif"), PIXELS)
    assert network.looked_up == [NAME], "one connection, which is kept"
    assert network.connected.count(PUBLIC) == 1
    write_item(folder / "item.json", {"red": asset(f"{other}/r.tif", "B04")})
    assert np.array_equal(whole(f"{web.url}/item.json"), PIXELS)


def test_a_server_that_is_given_may_be_any_and_its_connection_serves_nobody_else(
    web: Web, other: str, network: Network
) -> None:
    network.answers[NAME] = [["127.0.0.1"]]
    assert np.array_equal(whole(f"{other}/r.tif"), PIXELS)
    web.redirects["/moved.tif"] = f"{other}/r.tif"
    expect_refused(f"{web.url}/moved.tif", "which is not public")
    assert np.array_equal(whole(f"{other}/r.tif"), PIXELS)


def expect_refused(address: str, message: str) -> None:
    refusals.expect_refused(lambda: whole(address), message)
