"""Work that a night leaves: slides, tiles, time and nights, as far as they are known or can be estimated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flows.reporting.counting import count
from flows.reporting.progress import format_seconds
from tiling.archives.archive import Archive
from tiling.archives.slide import Slide
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import TilingError
from tiling.runs.ledger import TileState
from tiling.runs.run import Run


@dataclass(frozen=True, slots=True)
class WorkLeft:
    """Work that is left when a night ends.

    Attributes:
        slides: that are not done, those that are begun among them. begun: that were planned; tiles may be done.
        tiles: of all of them: counted where a slide is begun, as many as slides of that size had elsewhere; None
            where no slide was ever cut into tiles.
        seconds: of inference, at tonight's rate or an earlier night's; None where there was none.
        nights: at as much as a night does; None where that isn't known.

    >>> str(WorkLeft(3, 1, 120, 5400.0, 2))
    '3 slides left (1 begun): about 120 tiles, 1:30:00 of computing, 2 nights at this rate'
    """

    slides: int = 0
    begun: int = 0
    tiles: int | None = 0
    seconds: float | None = 0.0
    nights: int | None = 0

    def __str__(self) -> str:
        begun = f" ({self.begun} begun)" if self.begun else ""
        tiles = f"about {count(self.tiles, 'tile')}" if self.tiles is not None else "tiles not known yet"
        known = self.seconds is not None
        seconds = f"{format_seconds(self.seconds)} of computing" if known else "no rate is known yet"
        nights = f", {count(self.nights, 'night')} at this rate" if self.nights else ""
        return f"{count(self.slides, 'slide')} left{begun}: {tiles}, {seconds}{nights}"


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates at which slides of some size are computed; None where none is known.

    Attributes:
        tiles_per_byte: of a slide's file. seconds_per_byte: of inference. night_seconds: of it in one night.
    """

    tiles_per_byte: float | None = None
    seconds_per_byte: float | None = None
    night_seconds: float | None = None


def work_left(waiting: Sequence[Slide], begun: Sequence[SlideRecord], rates: Rates) -> WorkLeft:
    """Work that is left of slides that a night didn't come to, and of those that it began."""
    if not waiting and not begun:
        return WorkLeft()
    unopened = float(sum(slide.file_version.size_bytes for slide in waiting if slide.file_version))
    rest = sum(record.size_bytes * record.share_left for record in begun)
    seconds = None if rates.seconds_per_byte is None else (unopened + rest) * rates.seconds_per_byte
    nights = seconds / rates.night_seconds if seconds and rates.night_seconds else None
    return WorkLeft(
        slides=len(waiting) + len(begun),
        begun=len(begun),
        tiles=_tiles(unopened, begun, rates.tiles_per_byte),
        seconds=seconds,
        nights=None if nights is None else max(1, math.ceil(nights)),
    )


def tiles_per_byte(records: Iterable[SlideRecord]) -> float | None:
    """Tiles per byte of file, over the slides that have been cut into tiles."""
    cut = [record for record in records if record.tiles and record.size_bytes]
    return sum(record.tiles for record in cut) / sum(record.size_bytes for record in cut) if cut else None


def earlier_seconds_per_byte(records: Iterable[SlideRecord], rate: float | None) -> float | None:
    """Seconds per byte of file at a rate in megapixels per second, for as many pixels per byte as slides had so far."""
    seen = [record for record in records if record.pixels and record.size_bytes]
    if not seen or not rate:
        return None
    return sum(record.pixels for record in seen) / sum(record.size_bytes for record in seen) / (rate * 1e6)


def left_shares(archive: Archive, slides: Iterable[Slide]) -> dict[str, float]:
    """Share of its tiles that is left of each begun slide; the ledgers of the runs know it, also after a kill."""
    shares: dict[str, float] = {}
    for slide in slides:
        record, stamp = archive.ledger.get(slide.name), slide.file_version
        if record is None or record.state is not SlideState.BEGUN or stamp is None:
            continue
        if record.is_of(stamp.size_bytes, stamp.version, slide.overrides):
            shares[slide.name] = _share_left(archive, record)
    return shares


def _share_left(archive: Archive, record: SlideRecord) -> float:
    try:
        state = Run.open(archive.run_path(record.folder)).ledger.fold()
    except (TilingError, OSError):  # it is planned anew, and then said
        return record.share_left
    left = state.count(TileState.PENDING) + state.count(TileState.FAILED) + state.count(TileState.DAMAGED)
    return left / len(state.states) if len(state.states) else 1.0


def _tiles(unopened_bytes: float, begun: Sequence[SlideRecord], density: float | None) -> int | None:
    known = sum(record.left_tiles for record in begun)
    if not unopened_bytes:
        return known
    return None if density is None else known + max(1, round(unopened_bytes * density))
