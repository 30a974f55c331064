"""Signals that wait while libraries load: an error that is raised in what C++ calls there would abort the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

HELD_SECONDS = 8.0
"""At most, on a busy machine: less than the 30 s that Kubernetes and Slurm give by default."""
_HELD = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@contextmanager
def held_signals() -> Generator[None]:
    """While inside, the first signal waits for the end, for some seconds at most; a second one waits for nothing.

    Handlers raise their error wherever the main thread is. While libraries load, this may be Python code that C++ calls
    and of which it expects no error: it then aborts the process, with status 134 and a stack trace instead of one line.
    Loading takes seconds, and of a run nothing has begun.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is ignored, as SIGHUP under nohup, or ends the process without an error, stays so.
    before = {number: signal.getsignal(number) for number in _HELD}
    held = {number: handler for number, handler in before.items() if callable(handler)}
    waiting: list[int] = []
    ended = threading.Event()

    def hold(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) == 1:
            threading.Thread(target=send_again, args=(number,), name="held", daemon=True).start()
        else:
            held[signal.Signals(number)](number, frame)

    def send_again(number: int) -> None:
        if not ended.wait(HELD_SECONDS):
            os.kill(os.getpid(), number)

    for number in held:
        signal.signal(number, hold)
    try:
        yield
    finally:
        ended.set()
        for number, handler in held.items():
            signal.signal(number, handler)
        if len(waiting) == 1:
            signal.raise_signal(waiting[0])
