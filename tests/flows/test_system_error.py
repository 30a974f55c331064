"""Errors of the operating system: one line with the rule, the path and the remedy, in every command that writes."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.system_error import message_of


def fill(folder: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as stream:
        stream.write(b"x")


REAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such folder": (
        lambda folder: (folder / "none" / "x").write_text(""),
        r"none/x is not there, .*correct the path",
    ),
    "a folder": (lambda folder: folder.write_text(""), "is a folder, and a file is needed.*name a file"),
    "in a file": (lambda folder: Path(__file__, "x").mkdir(), "would lie in a file.*choose another place"),
    "there already": (lambda folder: folder.mkdir(), "is there already.*move it away"),
    "full": (fill, r"no room is left .*\(No space left on device\): make room"),
    "long": (lambda folder: (folder / ("x" * 300)).write_text(""), "longer than its file system takes.*shorter"),
    "proc": (lambda folder: Path("/proc/x").mkdir(), r"/proc/x is not there, and can't be made there"),
    "circle": (lambda folder: (folder / "circle").read_text(), "lead in a circle"),
}


@pytest.mark.parametrize("name", REAL)
def test_what_the_system_says_is_said_with_path_and_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    work, said = REAL[name]
    with pytest.raises(OSError) as raised:  # noqa: PT011 (of any kind)
        work(tmp_path)
    message = message_of(raised.value)
    assert "[Errno" not in message
    assert "\n" not in message
    assert re.search(said, message), message


def test_a_file_that_isnt_whole_yet_is_called_by_its_name() -> None:
    for folder in ("", "/proc/"):
        error = OSError(errno.ENOENT, os.strerror(errno.ENOENT), f"{folder}.net.pt2.{'0af' * 10}12.new")
        assert message_of(error).startswith(f"{folder}net.pt2 is not there")


def test_what_is_no_system_error_of_a_file_keeps_its_words() -> None:
    assert message_of(OSError("broken")) == "broken"
    assert message_of(ConnectionRefusedError(errno.ECONNREFUSED, "refused")).endswith("refused")
    assert message_of(ValueError("a value")) == "a value"


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null/x", "/sys/x"])
def test_a_model_is_not_exported_where_nothing_can_be_made(place: str) -> None:
    ended = CliRunner().invoke(app, ["models", "export", "nuclei-small", "-o", place, "--json"])
    assert ended.exit_code in {1, 2}
    message = json.loads(ended.stdout)["error"]["message"]
    assert place in message
    assert "choose another" in message
    assert "[Errno" not in message + ended.stderr
    assert ended.stderr == f"error: {message}\n"
