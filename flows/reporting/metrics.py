"""Metrics for Prometheus, through the exporter that every Ray node has: set by the driver, never by a worker.

Ray puts `ray_` before each name and `_total` behind a counter's. `deploy/grafana/overtile.json` shows them.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from dataclasses import dataclass

from ray.util.metrics import Counter, Gauge, Histogram

from flows.reporting.progress import Progress, Throttle
from flows.worker.result import TileResult

FLUSH_SECONDS = 1.0
RUNS_NAMED = 50
OTHER_RUNS = "other"
SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]

COUNTERS = {
    "overtile_tiles": "Tiles that ended, by run and state: done or failed.",
    "overtile_pixels": "Valid pixels that were labelled, by run.",
    "overtile_worked_seconds": "Seconds of work, by run and stage: stage, read, compute, write.",
}
GAUGES = {
    "overtile_tiles_to_do": "Tiles of the run that have not ended.",
    "overtile_ready_tiles": "Tiles that wait for a worker: the depth of the queue before inference.",
    "overtile_workers": "Workers that there are, or will be as soon as they have started.",
}
NIGHT_GAUGES = {
    "overtile_night_slides": "Slides of the night under way, by archive and state: done, failed, to do.",
    "overtile_night_left_seconds": "Seconds to the end of the night's slides at its rate so far.",
}
# Ray exports a histogram by the middles of its buckets, so its sum is no sum: that is what the counter is for.
HISTOGRAMS = {"overtile_stage_seconds": "Seconds of a tile in each stage: stage, read, compute, write."}

_named: set[str] = set()


@dataclass(frozen=True, slots=True)
class Queue:
    """Sizes of the queue, and the number of workers."""

    to_do: int
    ready: int
    workers: int


class RunMetrics:
    """One run's figures. A process gives its first 50 runs a series each; all others share one, so that an archive of
    10,000 slides doesn't make 10,000 series."""

    def __init__(self, name: str) -> None:
        self._run = label_of(name)
        self._tiles = Counter("overtile_tiles", COUNTERS["overtile_tiles"], ("run", "state"))
        self._pixels = Counter("overtile_pixels", COUNTERS["overtile_pixels"], ("run",))
        self._work = Counter("overtile_worked_seconds", COUNTERS["overtile_worked_seconds"], ("run", "stage"))
        self._gauges = {name: Gauge(name, text, ("run",)) for name, text in GAUGES.items()}
        text = HISTOGRAMS["overtile_stage_seconds"]
        self._stages = Histogram("overtile_stage_seconds", text, SECONDS, ("run", "stage"))
        self._due = Throttle(FLUSH_SECONDS)
        self._ended: Tally[str] = Tally()
        self._labelled = 0
        self._worked: dict[str, float] = defaultdict(float)

    def add(self, result: TileResult, queue: Queue) -> None:
        """Count a tile; exported at most once a second, so that the driver's loop doesn't wait for it."""
        self._ended["failed" if result.digest is None else "done"] += 1
        self._labelled += result.pixels
        for stage, seconds in result.seconds.items():
            self._stages.observe(seconds, {"run": self._run, "stage": stage})
            self._worked[stage] += seconds
        if self._due.due():
            self.flush(queue)

    def flush(self, queue: Queue) -> None:
        """Export what was counted since the last time."""
        for state, count in self._ended.items():
            self._tiles.inc(count, {"run": self._run, "state": state})
        if self._labelled:
            self._pixels.inc(self._labelled, {"run": self._run})
        for stage, seconds in self._worked.items():
            if not seconds:
                continue  # a stage too short for the clock, which Ray's counters take for an error
            self._work.inc(seconds, {"run": self._run, "stage": stage})
        self._ended.clear()
        self._worked.clear()
        self._labelled = 0
        values = (queue.to_do, queue.ready, queue.workers)
        for gauge, value in zip(self._gauges.values(), values, strict=True):
            gauge.set(value, {"run": self._run})


class NightMetrics:
    """A night's figures, by its archive."""

    def __init__(self, archive: str) -> None:
        self._archive = label_of(archive)
        tags = {"overtile_night_slides": ("archive", "state"), "overtile_night_left_seconds": ("archive",)}
        self._gauges = {name: Gauge(name, text, tags[name]) for name, text in NIGHT_GAUGES.items()}

    def show(self, progress: Progress) -> None:
        """Export the slides of a night by state, and the time that they will take where there is a rate."""
        counts = {"done": progress.done - progress.failed, "failed": progress.failed}
        for state, count in {**counts, "to do": progress.total - progress.done}.items():
            self._gauges["overtile_night_slides"].set(count, {"archive": self._archive, "state": state})
        if progress.eta_seconds is not None:
            self._gauges["overtile_night_left_seconds"].set(progress.eta_seconds, {"archive": self._archive})


def label_of(name: str) -> str:
    """The run's name as a label: printable and short, and one of few."""
    label = "".join(c if c.isprintable() else "_" for c in name)[:64] or OTHER_RUNS
    if label not in _named:
        if len(_named) >= RUNS_NAMED:
            return OTHER_RUNS
        _named.add(label)
    return label
