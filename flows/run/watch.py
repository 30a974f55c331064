"""Progress of a run, shown as it goes: on the terminal, in Prefect as an artifact, to Prometheus and in the log."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.pool.backlog import Backlog
from flows.pool.pool import Pool
from flows.reporting.escaping import markdown
from flows.reporting.metrics import Queue, RunMetrics
from flows.reporting.prefect_events import Artifact
from flows.reporting.prefect_names import artifact_key
from flows.reporting.progress import Progress, Throttle, report_progress
from flows.worker.result import TileResult
from tiling.runs.run import Run
from tiling.storage.place import Place

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.25
ARTIFACT_SECONDS = 5.0


class RunWatch:
    """Counts an inference stage's tiles and reports its progress."""

    def __init__(self, run: Run, todo: int, pool: Pool, backlog: Backlog) -> None:
        self._run, self._pool, self._backlog = run, pool, backlog
        self._path = run.path
        self._total = run.plan.count
        self._done_before = run.plan.count - todo
        self._done = self._failed = self._pixels = 0
        self._started: float | None = None
        self._to_terminal, self._to_prefect = Throttle(PROGRESS_SECONDS), Throttle(ARTIFACT_SECONDS)
        self._artifact = start_artifact("tiles", run.path)
        self._metrics = RunMetrics(run.path.name)

    def add(self, result: TileResult) -> None:
        if self._started is None:
            self._started = time.monotonic() - result.work_seconds
        self._done += 1
        self._failed += result.digest is None
        self._pixels += result.pixels
        self._metrics.add(result, self._queue)
        if result.digest is None:
            log_failure(self._run, result)
        if self._to_terminal.due():
            report_progress(self._now())
        if self._to_prefect.due():
            self._artifact.show(**self._shown())

    def end(self) -> None:
        now = self._now()
        report_progress(now)
        self._artifact.end(**self._shown())
        self._metrics.flush(self._queue)
        rate = round(now.megapixels_per_second, 3)
        facts = {"tiles": self._done, "failed": self._failed, "seconds": now.seconds, "megapixels_per_second": rate}
        logger.info("inference ended", extra=subject(self._run) | facts)

    @property
    def _queue(self) -> Queue:
        return Queue(self._total - self._done_before - self._done, self._backlog.ready, self._pool.size)

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

    def _shown(self) -> dict[str, Any]:
        now = self._now()
        return {"progress": 100.0 * now.done / now.total, "description": f"{now}; {markdown(self._path)}"}


def start_artifact(key: str, place: Place) -> Artifact:
    """A bar in Prefect's pages."""
    create = partial(create_progress_artifact, progress=0.0, key=artifact_key(key, place), description=markdown(place))
    return Artifact(create, update_progress_artifact)


def log_failure(run: Run, result: TileResult) -> None:
    """One line of the structured log about a tile that failed."""
    tile = run.plan.tile(result.tile).name
    logger.info("tile failed", extra=subject(run) | {"tile": tile, "reason": result.reason})


def subject(run: Run) -> dict[str, object]:
    """Subject of a line of the log."""
    return {"run": str(run.path), "slide": run.card.image.path}
