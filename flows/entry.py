"""The console script. Nothing but the standard library is loaded before it listens for Ctrl-C."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Load the commands and run the one that was asked for."""
    try:
        from flows.cli import app
    except KeyboardInterrupt:
        sys.stderr.write("stopped before it began\n")
        sys.exit(128 + signal.SIGINT)
    app()
