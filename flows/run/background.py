"""Background of a run: tiles where nothing is worth computing are written once, when it is planned."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from flows.errors import PoolError
from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.plan import Tile
from tiling.runs.card import RunCard
from tiling.runs.ledger import CARD, PLANNED, LedgerState, TileRecord, TileState
from tiling.runs.run import Run
from tiling.runs.skipped import Skipped
from tiling.runs.unchanged_source import VerifiedSource
from tiling.runs.uncomputed import SHARE
from tiling.selection.choose_view import ViewChoice
from tiling.selection.find_foreground import find_foreground
from tiling.selection.foreground import Foreground
from tiling.selection.part_map import PartMap
from tiling.source import ImageSource
from tiling.storage.task_map import TaskMap

logger = logging.getLogger(__name__)

THREADS = 2
AHEAD = 64


def as_it_is(card: RunCard, whole: ImageSource, choice: ViewChoice) -> VerifiedSource:
    """The image that a card describes, with the values that it has: what is no data is found before they change."""
    image, view = card.image, choice.view
    seen = view.model_copy(update={"stretch": None}) if view is not None else None
    fill = None if image.no_data is None else image.no_data.fill
    opened = whole.viewed(seen, fill)
    return VerifiedSource(image.path, seen, image.fingerprint, image.version, fill, opened)


def foreground_of(
    card: RunCard, source: VerifiedSource, tasks: Callable[[int], TaskMap | None] | None = None
) -> Foreground:
    """Parts of a card's image that are worth computing; of a large one, as `tasks` of so many pixels see it."""
    level, pixels = card.image.level, card.image.extent[0] * card.image.extent[1]

    def look(elsewhere: PartMap | None) -> Foreground:
        return source.read(lambda image: find_foreground(image, level, card.foreground, elsewhere))

    there = None if tasks is None or card.foreground != "auto" else tasks(pixels)
    if there is not None and source.source.is_read_by_parts(level):
        try:
            return look(source.elsewhere(there))
        except PoolError as error:
            logger.warning("%s: the look for foreground is done by the driver: %s", card.image.path, error)
    return look(None)


def skip_background(run: Run, state: LedgerState, source: VerifiedSource, found: Foreground, started: float) -> None:
    """Write background where nothing is worth computing, or nothing was asked for; then the plan stands."""
    image = run.card.image
    # Of the run, not of what this version would find: labels of tiles are cut by them.
    found = replace(found, squares=run.squares)
    skipped = _skip(run, state, source, found)
    reason = found.reason if run.outline is None else f"{found.reason}; those outside the polygons are skipped"
    if found.remark:
        logger.warning("%s: %s", image.path, found.remark)
        reason = f"{reason}. {found.remark}"
    share = found.share(run.plan.extent, _inside(run, found))
    seconds = round(time.monotonic() - started, 3)
    facts = {"skipped": skipped, "foreground": reason, SHARE: share, "seconds": seconds}
    state.add(run.ledger.announce(PLANNED, {**facts, CARD: run.card.digest()}, soon=True))


def _skip(run: Run, state: LedgerState, source: VerifiedSource, found: Foreground) -> int:
    """Write what skipped tiles hold, and say how many they are. Two threads read, where some may hold no data."""
    mask, count = run.open_mask(), 0
    candidates = (tile for tile in run.plan.tiles() if _is_outside(run, tile) or not found.keeps(tile))

    def look(tile: Tile) -> tuple[Tile, Skipped | None]:
        return tile, _skipped(run, source, found, tile)

    with ThreadPoolExecutor(THREADS) as threads:
        while batch := list(islice(candidates, AHEAD)):
            for tile, skipped in threads.map(look, batch) if run.fill is not None else map(look, batch):
                if skipped is not None:
                    digest = mask.write(tile, skipped.labels)
                    record = TileRecord(tile.index, TileState.SKIPPED, digest=digest, empty=skipped.empty)
                    run.ledger.append(record)
                    state.add(record)
                    count += 1
    return count


def _skipped(run: Run, source: VerifiedSource, found: Foreground, tile: Tile) -> Skipped | None:
    """Content of a tile that is to be skipped; None where it is computed all the same.

    The coarse view may show a tile empty that isn't, as where overviews take one pixel of many. What doesn't decode is
    tried, and fails with its reason, but where nobody asked for it.
    """
    if run.fill is None:
        return Skipped.of(run, None, tile)
    is_outside = _is_outside(run, tile)
    try:
        skipped = source.read(lambda image: Skipped.of(run, image, tile))
    except SourceError:
        return Skipped.of(run, None, tile) if is_outside else None
    is_judged = is_outside or not found.is_blind(tile)
    return skipped if is_judged or not skipped.has_data else None


def _inside(run: Run, found: Foreground) -> NDArray[np.bool_] | None:
    """Mask of the foreground's coarse pixels that lie in the polygons that were asked for."""
    if run.outline is None or found.coarse is None:
        return None
    height, width = found.coarse.shape
    scale = run.plan.grid.scale
    sides = found.factor[0] * float(scale[0]), found.factor[1] * float(scale[1])
    return run.outline.polygons.labels(Box(0, 0, height, width), sides).astype(np.bool_)


def _is_outside(run: Run, tile: Tile) -> bool:
    """True if a tile shares nothing with the polygons that were asked for."""
    box = tile.valid
    return run.outline is not None and not run.outline.meets(box.y0, box.x0, box.y1, box.x1)
