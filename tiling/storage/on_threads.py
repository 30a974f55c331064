"""Work on several threads whose pool ends with the call, whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from tiling.storage.generator_threads import GeneratorThreads

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Results of the work on each item, in order; the first error cancels what has not begun.

    A pool that outlives the call, as dask's does, can hold a process at its end for ever: SIGTERM is raised as an
    error in the main thread, and where it meets the start of a pool's thread, the interpreter doesn't know that thread
    as one to be ended (`concurrent.futures.thread`), but waits for it.
    """
    with GeneratorThreads(threads) as pool:
        return [*pool.map(work, items)]
