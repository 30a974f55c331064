"""Summary of a night, slide by slide, and the estimate of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flows.nightly.left import WorkLeft
from flows.nightly.verdict import Verdict
from flows.pool.scheduler import TileOutcome
from flows.reporting.progress import Progress, format_seconds
from tiling.archives.slide import Slide
from tiling.archives.slide_record import BAD, SlideRecord, SlideState
from tiling.escaping import some
from tiling.storage.place import Place, pasted


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
        left_seconds: what is left will take, at the measured rate; None where none was measured.
        left: the same with slides, tiles and nights.
        stood: slides of this night that had failed before, and whose files haven't changed since.
        unreported: of the known failures those that no night has reported, since the one that found them died.
        flags: why slides of this night are to be looked at.
        warnings: of nights before it, that died or did not begin. zone: of its name's clock.
        is_rerun: it tried nothing but what had failed, and "new" are those that failed again.
        missing: slides that have their masks, and whose images are no longer in the source since this night.
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
    left: WorkLeft = field(default_factory=WorkLeft)
    stood: frozenset[str] = frozenset()
    unreported: frozenset[str] = frozenset()
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    warnings: tuple[str, ...] = ()
    zone: str = ""
    missing: tuple[str, ...] = ()
    is_rerun: bool = False

    def of(self, *states: SlideState) -> list[SlideRecord]:
        return [record for record in self.records if record.state in states]

    @property
    def failed(self) -> list[SlideRecord]:
        """Every slide of the source that stands failed, tonight's first."""
        return [*self.of(*BAD), *self.known_failures]

    @property
    def new_failures(self) -> list[SlideRecord]:
        """Slides that stand failed since this night, or since one that died before it could say so."""
        tonight = (each for each in self.of(*BAD) if each.slide not in self.stood)
        earlier = (each for each in self.known_failures if each.slide in self.unreported)
        return [each for each in (*tonight, *earlier) if not each.acknowledged]

    @property
    def standing(self) -> list[SlideRecord]:
        """Slides that stood failed before, and that nobody has acknowledged."""
        return [each for each in self._known if not each.acknowledged]

    @property
    def acknowledged(self) -> list[SlideRecord]:
        return [each for each in self._known if each.acknowledged]

    @property
    def _known(self) -> list[SlideRecord]:
        again = [each for each in self.of(*BAD) if each.slide in self.stood or each.acknowledged]
        reported = (each for each in self.known_failures if each.slide not in self.unreported or each.acknowledged)
        return [*again, *reported]

    @property
    def complete(self) -> bool:
        """True if every slide of the source has its mask."""
        return not self.failed and not self.left.slides

    @property
    def verdict(self) -> Verdict:
        counts = {"new_failures": len(self.new_failures), "left": self.left.slides, "flagged": len(self.flags)}
        return Verdict.of(**counts, is_rerun=self.is_rerun)

    @property
    def slowest(self) -> SlideRecord | None:
        timed = [record for record in self.records if record.seconds > 0]
        return max(timed, key=lambda record: record.seconds, default=None)

    @property
    def megapixels_per_second(self) -> float:
        return self.pixels / 1e6 / self.inference_seconds if self.inference_seconds > 0 else 0.0

    @property
    def title(self) -> str:
        """Its date and time as people write them."""
        date, _, clock = self.name.partition("_")
        return f"{date} {clock[:2]}:{clock[2:4]} {self.zone}".rstrip()

    @property
    def page(self) -> Place:
        return self.archive / "nights" / f"{self.name}.html"

    @property
    def rerun_command(self) -> str:
        return f"overtile rerun {pasted(self.archive)} --failed"

    @property
    def advice(self) -> tuple[str, ...]:
        """Advice against what stands failed: another try only where it may end otherwise."""
        open_ones = [*self.new_failures, *self.standing]
        lasting = [each for each in open_ones if each.lasting]
        unread = [each for each in open_ones if each.failed_tiles and each.unreadable_tiles == each.failed_tiles]
        apart = {each.slide for each in (*lasting, *unread)}
        retried = [each for each in open_ones if each.state is SlideState.FAILED and each.slide not in apart]
        again = f"try {_named(retried)} again with: {self.rerun_command}"
        repair = f"another try would end alike for {_named(lasting)}: repair or replace the file, as its reason says"
        part = (
            f"parts of {_named(unread)} can't be read, and another try would end alike: repair or replace the file, or "
            f"do without them by damaged=mask in a manifest (docs/archives.md)"
        )
        return (*([again] if retried else []), *([repair] if lasting else []), *([part] if unread else []))

    @property
    def counts(self) -> dict[str, int]:
        """Number of slides by outcome."""
        return {
            "done": len(self.of(SlideState.DONE)),
            "with known content": len(self.of(SlideState.SAME)),
            "failed": len(self.new_failures),
            "known to fail": len(self.standing),
            "acknowledged": len(self.acknowledged),
            "to look at": len(self.flags),
            "still being written": len(self.of(SlideState.CHANGING)),
            "begun": len(self.of(SlideState.BEGUN)),
            "gone": len(self.of(SlideState.GONE)),
            "done and no longer in the source": len(self.missing),
            "waiting": self.waiting,
            "unchanged": self.unchanged,
        }

    def __str__(self) -> str:
        """Its result in one sentence."""
        message = ", ".join(f"{count} {what}" for what, count in self.counts.items() if count or what == "done")
        rate = f"{self.pixels / 1e6:.0f} MPix at {self.megapixels_per_second:.2f} MPix/s"
        left = f"; {self.left}" if self.left.slides else ""
        ended = f"ended by {self.ended_by} after {format_seconds(self.seconds)}"
        return f"slides: {message}; {rate}; {ended}{left}"


def _named(records: Sequence[SlideRecord]) -> str:
    return some([record.slide for record in records])


class ThroughputEstimate:
    """Progress of a night, and the estimate of the time that is left.

    What is left is known by the size of its files alone, so pixels and seconds are counted per byte of file.
    `shares`: of those slides that are begun, what is left of each.
    """

    def __init__(self, slides: Sequence[Slide], shares: Mapping[str, float] | None = None) -> None:
        self._total = len(slides)
        self._shares = shares or {}
        self._left = {slide.name: self._bytes_left(slide) for slide in slides}
        self.bytes_left = sum(self._left.values())
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
        share = min(self._bytes_left(of_slide) / tiles, self._left.get(of_slide.name, 0.0))
        self._left[of_slide.name] = self._left.get(of_slide.name, 0.0) - share
        self.bytes_left -= share
        self._bytes_done += share

    def end(self, slide: str) -> None:
        """Leave out what is left of a slide that has ended: of one that failed nothing more is computed."""
        self.bytes_left -= self._left.pop(slide, 0.0)

    @property
    def seconds(self) -> float:
        """From the first tile to the last so far."""
        return self._last - self._started if self._started is not None else 0.0

    @property
    def seconds_per_byte(self) -> float | None:
        return self.seconds / self._bytes_done if self._bytes_done else None

    def _bytes_left(self, slide: Slide) -> float:
        size = slide.file_version.size_bytes if slide.file_version else 0
        return size * self._shares.get(slide.name, 1.0)

    @property
    def left_seconds(self) -> float | None:
        if not self._bytes_done:
            return None
        return max(0.0, self.bytes_left) * self.seconds / self._bytes_done

    def now(self, slides_over: int, failed: int, ended: tuple[str, ...] = ()) -> Progress:
        return Progress(
            stage="segment",
            done=slides_over,
            total=self._total,
            failed=failed,
            pixels=self.pixels,
            seconds=self.seconds,
            unit="slides",
            left_seconds=self.left_seconds,
            ended=ended,
        )
