"""Progress of a night, shown as it goes: on the terminal, in Prefect as an artifact, to Prometheus and in the log."""

from __future__ import annotations

from typing import Any

from flows.nightly.night import ThroughputEstimate
from flows.nightly.slide_job import SlideJob
from flows.pool.scheduler import TileOutcome
from flows.reporting.counting import count
from flows.reporting.escaping import markdown, plain
from flows.reporting.metrics import NightMetrics, Queue, RunMetrics
from flows.reporting.progress import Progress, Throttle, format_seconds, report_progress
from flows.run.watch import ARTIFACT_SECONDS, PROGRESS_SECONDS, log_failure, start_artifact
from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideRecord, SlideState


class NightWatch:
    """Reports the progress of a night."""

    def __init__(self, archive: Archive, pace: ThroughputEstimate) -> None:
        self._archive, self._pace = archive, pace
        self._to_terminal, self._to_prefect = Throttle(PROGRESS_SECONDS), Throttle(ARTIFACT_SECONDS)
        self._artifact = start_artifact("slides", archive.path)
        self._metrics, self._night = RunMetrics(archive.path.name), NightMetrics(archive.path.name)

    def update(self, job: SlideJob, outcome: TileOutcome, queue: Queue) -> None:
        self._metrics.add(outcome.result, queue)
        if outcome.result.digest is None:
            log_failure(job.run, outcome.result)
        ended = self._ended()
        if self._to_terminal.due() or ended:
            now = self._now(ended)
            report_progress(now)
            self._night.show(now)
        if self._to_prefect.due():
            self._artifact.show(**self._shown())

    def end(self, queue: Queue) -> None:
        now = self._now(self._ended())
        report_progress(now)
        self._night.show(now)
        self._artifact.end(**self._shown())
        self._metrics.flush(queue)

    def _ended(self) -> tuple[str, ...]:
        records = self._archive.ledger.take_appended()
        for record in records:
            if record.state is not SlideState.BEGUN:
                self._pace.end(record.slide)
        return tuple(map(line_of, records))

    def _now(self, ended: tuple[str, ...] = ()) -> Progress:
        counts = self._archive.ledger.appended
        # What is begun when a night ends is left, and no slide of those that are over.
        return self._pace.now(counts.total() - counts[SlideState.BEGUN], counts[SlideState.FAILED], ended)

    def _shown(self) -> dict[str, Any]:
        now = self._now()
        share = 100.0 * now.done / now.total if now.total else 100.0
        return {"progress": share, "description": f"{now}; {markdown(self._archive.path)}"}


def line_of(record: SlideRecord) -> str:
    """One line about a slide that has ended tonight."""
    parts = [f"{record.slide}: {record.state.value}"]
    if record.state is SlideState.DONE:
        objects = record.measures.get("objects")
        parts += [count(record.tiles, "tile"), f"{record.pixels / 1e6:,.1f} MPix in {format_seconds(record.seconds)}"]
        parts += [] if objects is None else [count(objects, "object")]
    elif record.state is SlideState.BEGUN:
        parts += [f"{record.left_tiles} of {count(record.tiles, 'tile')} left"]
    elif record.reason:
        parts += [f"same content as {record.reason}" if record.state is SlideState.SAME else record.reason]
    return plain(", ".join(parts))
