"""Progress of a run: counted once, shown by whoever listens (a terminal, a log, a Prefect artifact)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a stage at one moment.

    Attributes:
        stage: the stage's name.
        done: tiles that are finished, with those of earlier drivers.
        total: tiles of the run.
        failed: tiles that failed.
        pixels: valid pixels labelled since this driver started.
        seconds: since this driver labelled its first tile.
        done_here: tiles finished by this driver.
        unit: what is counted.
        left_seconds: to the end, where that is known better than from the count.
        ended: a line for each slide that has ended since the last report.
    """

    stage: str
    done: int
    total: int
    failed: int = 0
    pixels: int = 0
    seconds: float = 0.0
    done_here: int = 0
    unit: str = "tiles"
    left_seconds: float | None = None
    ended: tuple[str, ...] = ()

    @property
    def megapixels_per_second(self) -> float:
        return self.pixels / 1e6 / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at the mean rate so far; None before there is a rate."""
        if self.left_seconds is not None:
            return self.left_seconds
        if not self.done_here or self.seconds <= 0:
            return None
        return (self.total - self.done) * self.seconds / self.done_here

    def __str__(self) -> str:
        is_timed = self.eta_seconds is not None and self.done < self.total
        eta = f", {format_seconds(self.eta_seconds)} left" if is_timed else ""
        failed = f", {self.failed} failed" if self.failed else ""
        rate = f", {self.megapixels_per_second:.2f} MPix/s" if self.pixels else ""
        return f"{self.stage}: {self.done}/{self.total} {self.unit}{failed}{rate}{eta}"


Listener = Callable[[Progress], None]

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
"""The listener that progress is reported to; a flow's parameters are data, so a terminal can't be one of them."""


def report_progress(progress: Progress) -> None:
    """Report progress to the listener, if there is one."""
    on_progress = listener.get()
    if on_progress is not None:
        on_progress(progress)


def begin_stage(stage: str) -> None:
    """Report the beginning of a stage that has no count of its own."""
    report_progress(Progress(stage, done=0, total=0))


class Throttle:
    """True at most once per interval: keeps progress from costing more than the work."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -float("inf")

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def format_seconds(seconds: float | None) -> str:
    """`1:02:03` or `2:03`; a dash when not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
