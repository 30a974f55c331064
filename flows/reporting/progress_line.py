"""Progress for Python callers: a bar on one line that is written over, or in a log a new line now and then."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from flows.reporting.escaping import plain
from flows.reporting.progress import Progress, Throttle
from flows.reporting.terminals import is_live

LOG_SECONDS = 30.0
CLEARED_COLUMNS = 100
BAR_COLUMNS = 20


class ProgressLine:
    """A line in a terminal or below a notebook's cell; silent where it isn't wanted."""

    def __init__(self, *, is_shown: bool = True) -> None:
        # A notebook colours what comes through stderr as if something were wrong.
        self._stream: TextIO | None = (sys.stdout if _is_notebook() else sys.stderr) if is_shown else None
        self._is_live = self._stream is not None and (_is_notebook() or is_live(self._stream))
        self._in_log = Throttle(LOG_SECONDS)
        self._stage = ""

    def __enter__(self) -> ProgressLine:
        self.on_progress(Progress("starting", 0, 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._write(f"\r{'':{CLEARED_COLUMNS}}\r")

    def on_progress(self, progress: Progress) -> None:
        """Show a moment of a stage."""
        text = str(progress) if progress.total else progress.stage
        if self._is_live:
            self._write(f"\r{_bar(progress)} {text:{CLEARED_COLUMNS - BAR_COLUMNS - 1}}")
            return
        if progress.stage != self._stage:
            self._stage, self._in_log = progress.stage, Throttle(LOG_SECONDS)
        if self._in_log.due():
            self._write(f"{text}\n")

    def print_line(self, text: str) -> None:
        """A line that stays."""
        start = "\r" if self._is_live else ""
        self._write(f"{start}{plain(text):{CLEARED_COLUMNS if self._is_live else 0}}\n")

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def _bar(progress: Progress) -> str:
    """Bar of the share that is done; dim where a stage has no count."""
    done = BAR_COLUMNS * progress.done // progress.total if progress.total else 0
    return "█" * done + "░" * (BAR_COLUMNS - done)


def _is_notebook() -> bool:
    return type(sys.stdout).__module__.startswith("ipykernel.")
