"""A second account of the machine, where the tests are run by root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
BECOME_NOBODY = "os.setgroups([]), os.setgid(65534), os.setuid(65534)"


def as_nobody(code: str, *arguments: str) -> str:
    """What a program prints that becomes another account once it is loaded."""
    if os.getuid() != 0:
        pytest.skip("only root can act as a second account")
    command = [sys.executable, "-c", code, *arguments]
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    asked = subprocess.run(command, cwd="/", env=clean, capture_output=True, text=True, timeout=120, check=False)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter and write to, which pytest's own folders are not."""
    if os.getuid() != 0:
        pytest.skip("only root can act as a second account")
    with tempfile.TemporaryDirectory(prefix="accounts-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
