"""The console script. Nothing but the standard library is loaded before it listens for Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Load the commands and run the one that was asked for."""
    try:
        os.getcwd()  # noqa: PTH109 (pathlib is not loaded yet)
    except OSError as error:
        sys.stderr.write(
            f"error: the folder that this command stands in is gone ({error.strerror}): no path leads anywhere from "
            f"it; cd into one that exists\n"
        )
        sys.exit(2)
    try:
        from flows.cli import app
    except KeyboardInterrupt:
        sys.stderr.write("stopped before it began\n")
        sys.exit(128 + signal.SIGINT)
    app()
