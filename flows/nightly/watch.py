"""Progress of a night, shown as it goes: on the terminal, in Prefect as an artifact, to Prometheus and in the log."""

from __future__ import annotations

from typing import Any

from flows.nightly.night import Pace
from flows.nightly.slide_job import SlideWork
from flows.pool.scheduler import Ended
from flows.reporting.escaping import markdown
from flows.reporting.metrics import Queue, RunMetrics
from flows.reporting.progress import Every, Progress, tell
from flows.run.watch import ARTIFACT_SECONDS, PROGRESS_SECONDS, begun_artifact, log_failure
from tiling.archives.archive import Archive
from tiling.archives.slide_ledger import SlideState


class NightWatch:
    """Tells how far the night is."""

    def __init__(self, archive: Archive, pace: Pace) -> None:
        self._archive, self._pace = archive, pace
        self._to_terminal, self._to_prefect = Every(PROGRESS_SECONDS), Every(ARTIFACT_SECONDS)
        self._artifact = begun_artifact("slides", archive.path)
        self._metrics = RunMetrics(archive.path.name)

    def look(self, work: SlideWork, ended: Ended, queue: Queue) -> None:
        self._metrics.add(ended.result, queue)
        if ended.result.digest is None:
            log_failure(work.run, ended.result)
        if self._to_terminal.due():
            tell(self._now())
        if self._to_prefect.due():
            self._artifact.show(**self._shown())

    def end(self, queue: Queue) -> None:
        tell(self._now())
        self._artifact.end(**self._shown())
        self._metrics.flush(queue)

    def _now(self) -> Progress:
        counts = self._archive.ledger.appended
        return self._pace.now(counts.total(), counts[SlideState.FAILED])

    def _shown(self) -> dict[str, Any]:
        now = self._now()
        share = 100.0 * now.done / now.total if now.total else 100.0
        return {"progress": share, "description": f"{markdown(self._archive.path)}: {now}"}
