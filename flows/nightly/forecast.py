"""Forecast of a night: how many slides, how long and how much space, before anything is computed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from flows.config.archive import ArchiveConfig
from flows.errors import FlowError
from flows.nightly.failures import reason_of
from flows.nightly.left import left_shares
from flows.nightly.scan import ScanResult
from flows.run.preflight import check_fit, requirements_of
from flows.worker.model import local_bundle
from tiling.archives.archive import Archive
from tiling.archives.slide import Slide
from tiling.archives.slide_record import SlideState
from tiling.errors import TilingError
from tiling.selection.choose_view import choose_view
from tiling.selection.view_request import ModelRequirements
from tiling.source import open_source
from unet_core.bundles.card import ModelCard, read_card

UNKNOWN_MODEL = ModelRequirements("the user's network", None, "uint8")
"""Of a network that is no bundle yet: its pixels are taken as they are."""

WORST_BYTES_PER_PIXEL = 4 / 3
"""A mask that doesn't compress, with its pyramid."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast of a night that is not run.

    Attributes:
        slides: that would be segmented, in order, with the pixels of each; of one that is begun what is left.
        unreadable: slides that would fail, with the reason.
        seconds: at the rate of earlier nights; None where there was none.
        mask_bytes: as masks of earlier nights took; None where there was none. mask_bytes_at_most: if none compressed.
        free_bytes: on the disk of the archive; None in a bucket. begun: slides that an earlier night has begun.
    """

    slides: tuple[tuple[str, int], ...]
    unreadable: tuple[tuple[str, str], ...]
    found: ScanResult
    pixels: int
    seconds: float | None
    mask_bytes: int | None
    mask_bytes_at_most: int
    free_bytes: int | None
    begun: frozenset[str] = frozenset()


def forecast(config: ArchiveConfig, archive: Archive, found: ScanResult) -> Forecast:
    """Read the header of every slide that would be segmented, and estimate time and space."""
    slides: list[tuple[str, int]] = []
    unreadable: list[tuple[str, str]] = []
    card, shares = _card_of(config), left_shares(archive, found.todo)
    for slide in found.todo:
        try:
            slides.append((slide.name, round(_pixels(config, card, slide) * shares.get(slide.name, 1.0))))
        except (TilingError, FlowError, ValidationError, OSError) as error:
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
        begun=frozenset(shares),
    )


def _card_of(config: ArchiveConfig) -> ModelCard | None:
    origin = config.origin()
    origin.expect_trust()
    if origin.kind != "bundle":
        return None
    with local_bundle(config.model) as folder:
        return read_card(folder)


def _pixels(config: ArchiveConfig, card: ModelCard | None, slide: Slide) -> int:
    """Of what would be segmented: at the pixel size that the model or the manifest asks for."""
    options = config.of_slide(slide.place, Path("run"), config.model, slide.overrides)
    wanted = replace(options.view_request(), normalise=None, damaged=None)  # of no account here, and they take long
    choice = choose_view(slide.place, wanted, requirements_of(card) if card else UNKNOWN_MODEL)
    with open_source(slide.place, choice.view) as seen:
        if card is not None:
            check_fit(seen, card)
        level = seen.levels[choice.level]
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
