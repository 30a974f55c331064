"""Threads that a generator works with, which it leaves without waiting where it is given up before its end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType


class GeneratorThreads(ThreadPoolExecutor):
    """A pool of threads for the `with` of a generator.

    A generator that is given up, as by an error in what it gave rise to, is ended by the garbage collector in whatever
    thread is running: one that is just being started holds the lock that waiting for another one takes, and would wait
    for ever. So nothing is waited for then; what has not begun is cancelled.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(wait=kind is not GeneratorExit, cancel_futures=kind is not None)
