"""A calm end on request: a drained node, a preempted machine, Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from flows.errors import StoppedError

GRACE_SECONDS = 20.0
"""For the tiles in flight: less than the 30 s that Kubernetes and Slurm give by default."""


@dataclass(slots=True)
class StopRequest:
    """A request to stop, and until when tiles in flight may still end; also made when the time is up.

    `ends_at`, on the monotonic clock, is when no further tile is begun anyway; those in flight then end in peace.
    """

    by: signal.Signals | None = None
    deadline: float = 0.0
    ends_at: float = float("inf")

    @property
    def is_requested(self) -> bool:
        return self.by is not None or time.monotonic() >= self.ends_at

    @property
    def is_over(self) -> bool:
        """Whether the grace has passed too."""
        return self.by is not None and time.monotonic() > self.deadline

    def request(self, by: signal.Signals, grace_seconds: float = GRACE_SECONDS) -> None:
        self.by, self.deadline = by, time.monotonic() + grace_seconds


class _Terminated(BaseException):
    """Raised wherever the main thread is; an ordinary error might be swallowed there, by an import's fallback say."""


@contextmanager
def sigterm_as_error() -> Generator[None]:
    """While inside, SIGTERM raises an error instead of ending the process silently.

    Prefect catches SIGTERM while a flow runs, reports the run as crashed, and then hands the signal on to this.

    Raises:
        StoppedError: on SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stopped(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, stopped)
    try:
        yield
    except _Terminated:
        raise StoppedError.by(signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def keep_sigterm() -> Generator[None]:
    """Keep the handler of SIGTERM while Ray starts inside, here or in another thread.

    Ray puts a handler of its own in Python's place, and absl's failure signal handler before it: that one prints a
    stack trace and aborts the process three seconds later, whatever is still being ended in order.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def stop_on_signals(ends_at: float = float("inf")) -> Generator[StopRequest]:
    """While inside, the first SIGTERM or SIGINT asks for a calm end, as `ends_at` does; a second SIGINT ends at once.

    Python delivers signals to the main thread only: elsewhere nothing is caught, and whoever runs the flow
    there decides.
    """
    stop = StopRequest(ends_at=ends_at)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.request(signal.Signals(number))

    previous = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
