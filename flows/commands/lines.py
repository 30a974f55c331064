"""Progress off a terminal: a line for each slide that ends, and a heartbeat each minute, for mails and logs."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from types import TracebackType

from flows.reporting.progress import Progress

BEAT_SECONDS = 60.0


class ProgressLines:
    """Prints lines while it is entered. Safe to use from several threads.

    Args:
        say: prints one line.
        now: the time that a heartbeat shows.
    """

    def __init__(self, say: Callable[[str], None], now: Callable[[], dt.datetime] = dt.datetime.now) -> None:
        self._say, self._now = say, now
        self._last: Progress | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._beating = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> ProgressLines:
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._beating.join()

    def show(self, progress: Progress) -> None:
        """Print what has ended since the last time; the rest waits for the heartbeat."""
        with self._lock:
            self._last = progress
            for line in progress.ended:
                self._say(line)

    def beat(self) -> None:
        """Print where the work stands, also where nothing has happened: silence means that it is dead."""
        with self._lock:
            stands = "starting Prefect and Ray" if self._last is None else _shown(self._last)
            self._say(f"{self._now():%H:%M} {stands}")

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self.beat()


def _shown(progress: Progress) -> str:
    return str(progress) if progress.total else progress.stage
