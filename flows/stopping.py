"""A calm end on request: a drained node, a preempted machine, Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

GRACE_SECONDS = 20.0
"""For the tiles in flight: less than the 30 s that Kubernetes and Slurm give by default."""


@dataclass(slots=True)
class Stop:
    """Whether somebody asked to stop, and until when tiles in flight may still end."""

    by: signal.Signals | None = None
    deadline: float = 0.0

    @property
    def is_asked(self) -> bool:
        return self.by is not None

    @property
    def is_over(self) -> bool:
        """Whether the grace has passed too."""
        return self.is_asked and time.monotonic() > self.deadline

    def ask(self, by: signal.Signals, grace_seconds: float = GRACE_SECONDS) -> None:
        self.by, self.deadline = by, time.monotonic() + grace_seconds


@contextmanager
def stop_on_signals() -> Generator[Stop]:
    """While inside, the first SIGTERM or SIGINT asks for a calm end; a second SIGINT ends at once.

    Python delivers signals to the main thread only: elsewhere nothing is caught, and whoever runs the flow
    there decides.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.ask(signal.Signals(number))

    previous = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
