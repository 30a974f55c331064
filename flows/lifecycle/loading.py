"""Loading of modules while the garbage collector rests, which finds nothing there and looks through all of it."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def uncollected(*, own_process: bool = False) -> Generator[None]:
    """Load modules without collections of garbage meanwhile.

    In a process of a command's own, what was loaded is put where later collections don't look (0.2 seconds each, in
    which no thread goes on); in another's process it would keep that one's garbage, too.

    Args:
        own_process: says so; blocks after the first one in such a process need not.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if own_process or gc.get_freeze_count():
            gc.freeze()
        if was_on:
            gc.enable()
