"""Tells how far a run or a night is: on the terminal, and in Prefect as an artifact."""

from __future__ import annotations

import time
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.night import Pace
from flows.plain import markdown
from flows.progress import Every, Progress, tell
from flows.result import TileResult
from tiling.archive import Archive
from tiling.run import Run
from tiling.slide_record import SlideState

PROGRESS_SECONDS = 0.25
ARTIFACT_SECONDS = 5.0


class RunWatch:
    """Counts an inference stage's tiles and tells how far it is, on the terminal and in Prefect."""

    def __init__(self, run: Run, todo: int) -> None:
        self._path = run.path
        self._total = run.plan.count
        self._done_before = run.plan.count - todo
        self._done = self._failed = self._pixels = 0
        self._started: float | None = None
        self._to_terminal, self._to_prefect = Every(PROGRESS_SECONDS), Every(ARTIFACT_SECONDS)
        self._artifact: Any = create_progress_artifact(progress=0.0, key="tiles", description=markdown(run.path))

    def add(self, result: TileResult) -> None:
        if self._started is None:
            # Workers load the model before their first tile: that is no part of the rate.
            on_first = sum(result.seconds.get(stage, 0.0) for stage in ("read", "compute", "write"))
            self._started = time.monotonic() - on_first
        self._done += 1
        self._failed += result.digest is None
        self._pixels += result.pixels
        if self._to_terminal.due():
            tell(self._now())
        if self._to_prefect.due():
            self._update_artifact()

    def end(self) -> None:
        tell(self._now())
        self._update_artifact()

    @property
    def seconds(self) -> float:
        """Since the first tile began."""
        return round(time.monotonic() - self._started, 3) if self._started is not None else 0.0

    def _now(self) -> Progress:
        return Progress(
            stage="infer",
            done=self._done_before + self._done,
            total=self._total,
            failed=self._failed,
            pixels=self._pixels,
            seconds=self.seconds,
            done_here=self._done,
        )

    def _update_artifact(self) -> None:
        now = self._now()
        share = 100.0 * now.done / now.total
        update_progress_artifact(self._artifact, progress=share, description=f"{markdown(self._path)}: {now}")


class NightWatch:
    """Tells how far the night is, on the terminal and in Prefect."""

    def __init__(self, archive: Archive, pace: Pace) -> None:
        self._archive, self._pace = archive, pace
        self._to_terminal, self._to_prefect = Every(PROGRESS_SECONDS), Every(ARTIFACT_SECONDS)
        self._artifact: Any = create_progress_artifact(progress=0.0, key="slides", description=markdown(archive.path))

    def look(self) -> None:
        if self._to_terminal.due():
            tell(self._now())
        if self._to_prefect.due():
            self._update_artifact()

    def end(self) -> None:
        tell(self._now())
        self._update_artifact()

    def _now(self) -> Progress:
        counts = self._archive.ledger.appended
        return self._pace.now(counts.total(), counts[SlideState.FAILED])

    def _update_artifact(self) -> None:
        now = self._now()
        share = 100.0 * now.done / now.total if now.total else 100.0
        update_progress_artifact(self._artifact, progress=share, description=f"{markdown(self._archive.path)}: {now}")
