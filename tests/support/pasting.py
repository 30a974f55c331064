"""A printed command as a person pastes it: into a new shell, in another folder, with nothing in its environment."""

from __future__ import annotations

import shlex
import signal
import subprocess
from pathlib import Path

from cli import OVERTILE, hear_signals


def pasted_words(command: str, **placeholders: object) -> str:
    """The command with its program as a terminal names it, and its placeholders filled in."""
    assert command.startswith("overtile "), command
    text = f"{shlex.quote(str(OVERTILE))}{command.removeprefix('overtile')}"
    for name, value in placeholders.items():
        assert f" {name}" in text, (name, command)
        text = text.replace(f" {name}", f" {shlex.quote(str(value))}")
    return text


def nothing(home: Path) -> dict[str, str]:
    """What `env -i HOME=… PATH=/usr/bin:/bin` leaves."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin"}


def paste(command: str, folder: Path, more: str = "", **placeholders: object) -> subprocess.CompletedProcess[str]:
    """Run it there; the folder is also the home. `more` is put behind it."""
    return subprocess.run(
        ["/bin/sh", "-c", f"{pasted_words(command, **placeholders)} {more}"],
        cwd=folder,
        env=nothing(folder),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def paste_until(begins: str, command: str, folder: Path) -> int:
    """Exit code of a command that lasts: pasted, stopped with Ctrl-C once it has printed a line that begins so."""
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec {pasted_words(command)}"],
        cwd=folder,
        env=nothing(folder),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_signals,
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith(begins) for line in process.stdout), command
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        return process.wait(60)
