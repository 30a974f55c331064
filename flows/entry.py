"""The console script. Nothing but the standard library is loaded before it listens for Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys

from flows.lifecycle.bounded_exit import end_process
from flows.lifecycle.exit_status import EXIT_SIGNALLED, recorded_exit_status
from flows.lifecycle.loading import uncollected


def main() -> None:
    """Load the commands and run the one that was asked for."""
    if sys.argv[1:] == ["--version"]:  # asked by programs too, often
        from importlib.metadata import version

        sys.stdout.write(f"overtile {version('overtile')}\n")
        return
    if message := refusal(sys.platform):
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
    try:
        os.getcwd()  # noqa: PTH109 (pathlib is not loaded yet)
    except OSError as error:
        sys.stderr.write(
            f"error: the folder that this command stands in is gone ({error.strerror}): no path leads anywhere from "
            f"it; cd into one that exists\n"
        )
        sys.exit(2)
    try:
        with uncollected(own_process=True):
            from flows.cli import app
    except KeyboardInterrupt:
        sys.stderr.write("stopped before it began\n")
        sys.exit(EXIT_SIGNALLED + signal.SIGINT)
    try:
        with recorded_exit_status():
            app()
    finally:
        end_process()


def refusal(platform: str) -> str:
    """Reason why nothing starts on a system; empty on Linux."""
    if platform == "linux":
        return ""
    name = {"win32": "Windows", "cygwin": "Windows", "darwin": "macOS"}.get(platform, platform)
    way = "in WSL: wsl --install, then pip install there" if name == "Windows" else "in a Linux container or machine"
    return f"overtile runs on Linux, and this is {name}, whose locks and processes differ: run it {way}"
