"""The folders that an embedded Ray leaves, one per command: each goes with its command, or is swept by a later one."""

from __future__ import annotations

import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil

SETTLED_SECONDS = 60.0
"""After which nobody is still starting in a folder: a process of another container can't be asked for."""
NAME = re.compile(r"session_[0-9-]+_[0-9-]+_[0-9]+_(?P<process>[0-9]+)")


def remove_session(folder: Path) -> None:
    """Remove what a Ray that ended leaves; where one of its processes still writes, the next command finds the rest."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep_sessions(folder: Path) -> None:
    """Remove what commands leave that were killed; never the folder of a Ray that lives, whoever started it."""
    with suppress(OSError):
        for session in folder.iterdir():
            named = NAME.fullmatch(session.name)
            if named and not session.is_symlink() and _is_left(session, int(named["process"])):
                shutil.rmtree(session, ignore_errors=True)


def _is_left(session: Path, process: int) -> bool:
    try:
        age = time.time() - session.stat().st_mtime
    except OSError:
        return False
    return age > SETTLED_SECONDS and not psutil.pid_exists(process) and not _answers(session / "sockets" / "raylet")


def _answers(path: Path) -> bool:
    """True if a raylet listens there."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(1.0)
        try:
            asked.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # it can't be known
            return True
    return True
