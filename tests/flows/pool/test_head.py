"""A driver looks whether its cluster's head is there, without asking Ray, which would wait for it."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from flows.errors import ClusterLostError
from flows.pool import head as module
from flows.pool.head import Head


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_head_that_is_there_answers(listening: socket.socket) -> None:
    with listening:
        head = Head(f"127.0.0.1:{listening.getsockname()[1]}")
        assert head.answers()
        head.wait()
    assert not head.is_lost


def test_a_silent_head_is_waited_for_and_then_lost(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(f"127.0.0.1:{listening.getsockname()[1]}")
    listening.close()
    assert not head.answers()
    monkeypatch.setattr(module, "LOST_SECONDS", -1.0)
    with pytest.raises(ClusterLostError, match=r"head of the Ray cluster at 127\.0\.0\.1:\d+ has not .* same command"):
        head.wait()
    assert head.is_lost


def test_a_head_that_comes_back_is_not_lost(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = listening.getsockname()[1]
    head = Head(f"127.0.0.1:{port}")
    listening.close()
    asked = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda _: asked.set())
    again: list[socket.socket] = []

    def come_back() -> None:
        asked.wait()
        again.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=come_back)
    thread.start()
    head.wait()
    thread.join()
    again[0].close()
    assert not head.is_lost
