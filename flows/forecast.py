"""What a night would do: how much, how long and how much space, told before anything is computed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from flows.archive_config import ArchiveConfig
from flows.look import Found
from flows.slide_work import reason_of
from tiling.archive import Archive
from tiling.errors import PlanError, TilingError
from tiling.slide_record import SlideState
from tiling.slides import Slide
from tiling.source import open_source

WORST_BYTES_PER_PIXEL = 4 / 3
"""A mask that doesn't compress, with its pyramid."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A night that isn't held.

    Attributes:
        slides: that would be segmented, in order, with the pixels of each.
        unreadable: slides that would fail, with the reason.
        seconds: at the rate of earlier nights; None where there was none. night_seconds: until the night's end.
        mask_bytes: as masks of earlier nights took; None where there was none. mask_bytes_at_most: if none compressed.
        free_bytes: on the disk of the archive; None in a bucket.
    """

    slides: tuple[tuple[str, int], ...]
    unreadable: tuple[tuple[str, str], ...]
    found: Found
    pixels: int
    seconds: float | None
    mask_bytes: int | None
    mask_bytes_at_most: int
    free_bytes: int | None


def forecast(config: ArchiveConfig, archive: Archive, found: Found) -> Forecast:
    """Open every slide that would be segmented, as far as its pyramid, and reckon."""
    slides: list[tuple[str, int]] = []
    unreadable: list[tuple[str, str]] = []
    for slide in found.todo:
        try:
            slides.append((slide.name, _pixels(config, slide)))
        except (TilingError, OSError) as error:
            unreadable.append((slide.name, reason_of(error)))
    pixels = sum(count for _, count in slides)
    rate, density = _rate(archive), _mask_bytes_per_pixel(archive)
    return Forecast(
        slides=tuple(slides),
        unreadable=tuple(unreadable),
        found=found,
        pixels=pixels,
        seconds=pixels / 1e6 / rate if rate else None,
        mask_bytes=round(pixels * density) if density else None,
        mask_bytes_at_most=round(pixels * WORST_BYTES_PER_PIXEL),
        free_bytes=_free(archive),
    )


def _pixels(config: ArchiveConfig, slide: Slide) -> int:
    with open_source(slide.place) as source:
        number = int(slide.overrides.get("level") or config.level or 0)
        if number >= len(source.levels):
            raise PlanError(f"level {number} is not in the image; it has levels 0 to {len(source.levels) - 1}")
        level = source.levels[number]
        return level.height * level.width


def _rate(archive: Archive) -> float | None:
    """Megapixels per second of the last night that labelled any."""
    rates = [event["facts"]["rate"] for event in archive.ledger.events if event["event"] == "morning"]
    return next((rate for rate in reversed(rates) if rate > 0), None)


def _mask_bytes_per_pixel(archive: Archive) -> float | None:
    done = [record for record in archive.ledger if record.state is SlideState.DONE and record.mask_bytes]
    pixels = sum(record.pixels for record in done)
    return sum(record.mask_bytes for record in done) / pixels if pixels else None


def _free(archive: Archive) -> int | None:
    if not isinstance(archive.path, Path):
        return None
    there = next(folder for folder in (archive.path, *archive.path.parents) if folder.exists())
    return shutil.disk_usage(there).free
