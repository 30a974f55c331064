"""The folders of embedded Rays: gone with their commands, swept where those were killed, and no living one's."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.pool.ray_sessions import sweep_sessions

DEAD = 2**22 - 1  # no process has it: one more than the most that Linux gives


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as short:  # a socket's path has 107 characters at most
        yield Path(short)


def left_by(folder: Path, process: int, *, seconds_ago: float = 3600) -> Path:
    session = folder / f"session_2026-01-01_00-00-00_000001_{process}"
    (session / "logs").mkdir(parents=True)
    (session / "sockets").mkdir()
    (session / "logs" / "raylet.out").write_text("")
    then = time.time() - seconds_ago
    os.utime(session, (then, then))
    return session


def test_what_a_killed_command_leaves_is_swept(folder: Path) -> None:
    session = left_by(folder, DEAD)
    sweep_sessions(folder)
    assert not session.exists()


def test_what_a_living_command_has_stays(folder: Path) -> None:
    session = left_by(folder, os.getpid())
    sweep_sessions(folder)
    assert session.exists()


def test_what_has_just_begun_stays(folder: Path) -> None:
    session = left_by(folder, DEAD, seconds_ago=0)
    sweep_sessions(folder)
    assert session.exists()


def test_where_a_raylet_answers_whose_starter_is_gone_all_stays(folder: Path) -> None:
    session = left_by(folder, DEAD)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(session / "sockets" / "raylet"))
        raylet.listen()
        sweep_sessions(folder)
        assert session.exists()
    sweep_sessions(folder)
    assert not session.exists()


def test_other_files_and_links_stay(folder: Path, tmp_path: Path) -> None:
    elsewhere = left_by(tmp_path, DEAD)
    (folder / "session_latest").symlink_to(elsewhere)
    link = folder / f"session_2026-01-01_00-00-00_000002_{DEAD}"
    link.symlink_to(elsewhere)
    (folder / "notes.txt").write_text("")
    sweep_sessions(folder)
    assert link.is_symlink()
    assert (folder / "notes.txt").exists()
    assert elsewhere.exists()


def test_nothing_is_said_where_there_is_no_folder(folder: Path) -> None:
    sweep_sessions(folder / "none")
