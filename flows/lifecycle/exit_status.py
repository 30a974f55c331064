"""The exit status that this process is about to end with, for what has to end it without Python's own way."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

_recorded: list[int] = []


@contextmanager
def recorded_exit_status() -> Generator[None]:
    """Record what a command exits with: handlers at exit aren't given it."""
    try:
        yield
    except SystemExit as ending:
        _recorded.append(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
        raise
    _recorded.append(0)


def exit_status() -> int:
    """Exit status of the command; of a script, 1 where an error ended it and 0 otherwise."""
    return _recorded[-1] if _recorded else int(hasattr(sys, "last_value"))
