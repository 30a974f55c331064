"""Summary of a night, slide by slide, and the estimate of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from flows.pool.scheduler import TileOutcome
from flows.reporting.progress import Progress, format_seconds
from tiling.archives.slide import Slide
from tiling.archives.slide_ledger import SlideRecord, SlideState
from tiling.escaping import word
from tiling.storage.place import Place

BAD = (SlideState.FAILED, SlideState.REFUSED)


@dataclass(frozen=True, slots=True)
class NightSummary:
    """Summary of a night.

    Attributes:
        name: its date and time, which names its pages.
        records: the outcome of the slides that it looked at, in order of their names.
        known_failures: slides that failed before, whose files haven't changed since.
        unchanged: slides that were done before. waiting: slides that the night didn't come to.
        ended_by: what ended it.
        seconds: in all. inference_seconds: from the first tile to the last. pixels: labelled in this time.
        busy_share: of the workers' time in between, each from when it was there, in which they had a tile.
        left_seconds: what the waiting slides will take, at the measured rate; None where none was measured.
    """

    archive: Place
    name: str
    records: tuple[SlideRecord, ...]
    known_failures: tuple[SlideRecord, ...]
    unchanged: int
    waiting: int
    ended_by: str
    seconds: float
    inference_seconds: float
    pixels: int
    busy_share: float
    left_seconds: float | None

    def of(self, *states: SlideState) -> list[SlideRecord]:
        return [record for record in self.records if record.state in states]

    @property
    def failed(self) -> list[SlideRecord]:
        """Every slide of the source that stands failed, tonight's first."""
        return [*self.of(*BAD), *self.known_failures]

    @property
    def complete(self) -> bool:
        return not self.failed

    @property
    def megapixels_per_second(self) -> float:
        return self.pixels / 1e6 / self.inference_seconds if self.inference_seconds > 0 else 0.0

    @property
    def rerun_command(self) -> str:
        return f"overtile rerun {word(self.archive)} --failed"

    def __str__(self) -> str:
        """Its result in one sentence."""
        counts = {
            "done": len(self.of(SlideState.DONE)),
            "with known content": len(self.of(SlideState.SAME)),
            "failed": len(self.failed),
            "still being written": len(self.of(SlideState.CHANGING)),
            "begun": len(self.of(SlideState.BEGUN)),
            "gone": len(self.of(SlideState.GONE)),
            "waiting": self.waiting,
            "unchanged": self.unchanged,
        }
        message = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "done")
        rate = f"{self.pixels / 1e6:.0f} MPix at {self.megapixels_per_second:.2f} MPix/s"
        return f"slides: {message}; {rate}; ended by {self.ended_by} after {format_seconds(self.seconds)}"


class ThroughputEstimate:
    """Progress of a night, and the estimate of the time that is left.

    What is left is known by the size of its files alone, so pixels and seconds are counted per byte of file.
    """

    def __init__(self, slides: Sequence[Slide]) -> None:
        self._total = len(slides)
        self._bytes_in_all = sum(slide.file_version.size_bytes for slide in slides if slide.file_version)
        self._bytes_done = 0.0
        self._started: float | None = None
        self._last = 0.0
        self.pixels = 0

    def add(self, outcome: TileOutcome, of_slide: Slide, tiles: int) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started = now - outcome.result.work_seconds
        self._last = now
        self.pixels += outcome.result.pixels
        self._bytes_done += of_slide.file_version.size_bytes / tiles if of_slide.file_version else 0.0

    @property
    def seconds(self) -> float:
        """From the first tile to the last so far."""
        return self._last - self._started if self._started is not None else 0.0

    @property
    def left_seconds(self) -> float | None:
        if not self._bytes_done:
            return None
        return max(0.0, self._bytes_in_all - self._bytes_done) * self.seconds / self._bytes_done

    def now(self, slides_over: int, failed: int) -> Progress:
        return Progress(
            stage="segment",
            done=slides_over,
            total=self._total,
            failed=failed,
            pixels=self.pixels,
            seconds=self.seconds,
            unit="slides",
            left_seconds=self.left_seconds,
        )
