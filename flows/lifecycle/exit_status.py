"""The exit status that this process is about to end with, for what has to end it without Python's own way."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

EXIT_SIGNALLED = 128
"""Of a command that a signal ended, plus the signal's number, as shells have it."""

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


def is_recorded() -> bool:
    """True once a command has ended by itself, and not by an error that nobody expected."""
    return bool(_recorded)


def exit_status() -> int:
    """Exit status of the command; 1 where none was recorded, as of a script: what it was to be isn't known."""
    return _recorded[-1] if _recorded else 1
