"""Counts of a mask's pixels per label, and their areas on the ground."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.georeference.ground_areas import Ground
from tiling.plan import TilePlan
from tiling.runs.label_counts import label_counts
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED, Mask
from tiling.storage.on_threads import on_threads

PIXELS_AT_ONCE = 2**22
COUNTED_AT_ONCE = 2**20  # counting makes 8 bytes of each
MOST_PIXELS = 2**31
_PIECE_PX = 1024


def count_labels(mask: Mask, *, most_pixels: int = MOST_PIXELS, threads: int = 2) -> tuple[NDArray[np.int64], int]:
    """Count the pixels of every label, 0 to 255, strip by strip.

    Returns:
        The counts, and the level of the pyramid on which they were made: 0, or for a mask of more than `most_pixels`
        the finest that has no more, whose counts are multiplied up and so are near, not exact.
    """
    level = counted_level(mask, most_pixels)
    array = mask.levels[level]
    height, width = (int(side) for side in array.shape)
    tall, wide = cast("tuple[int, int]", array.shards or array.chunks)
    wide *= max(1, PIXELS_AT_ONCE // (tall * wide))
    counts = np.zeros(256, np.int64)

    def count(box: Box) -> NDArray[np.int64]:
        labels = mask.pyramid.read_quick(box, level).ravel()
        parts = (labels[start : start + COUNTED_AT_ONCE] for start in range(0, labels.size, COUNTED_AT_ONCE))
        return sum((label_counts(part) for part in parts), np.zeros(256, np.int64))

    for top in range(0, height, tall):
        row = [Box(top, x, min(top + tall, height), min(x + wide, width)) for x in range(0, width, wide)]
        for found in on_threads(count, row, threads):
            counts += found
    return counts * _area(mask.levels[0]) // _area(array) if level else counts, level


def counted_level(mask: Mask, most_pixels: int = MOST_PIXELS) -> int:
    """The finest level of the pyramid that has no more pixels."""
    return next((n for n, array in enumerate(mask.levels) if _area(array) <= most_pixels), len(mask.levels) - 1)


def recorded_counts(plan: TilePlan, state: LedgerState) -> NDArray[np.int64] | None:
    """The counts of a closed mask by its ledger, folded with what tiles hold, without a look at the mask.

    None where the ledger can't say: of a tile that is damaged or to do, or was done by a version that didn't count.
    """
    if state.counts is None or not np.isin(state.states, (TileState.DONE, TileState.SKIPPED, TileState.FAILED)).all():
        return None
    counts = np.zeros(256, np.int64)
    recorded = np.zeros(plan.count, np.int64)
    for label, of_tiles in state.counts.items():
        counts[label] = of_tiles.sum(dtype=np.int64)
        recorded += of_tiles
    for index in np.flatnonzero(recorded == 0).tolist():
        if state.states[index] == TileState.DONE:
            return None
        area, lacking = plan.tile(index).valid.area, state.empty_of(index).no_data
        is_failed = state.states[index] == TileState.FAILED
        counts[NOT_PREDICTED] += area if is_failed else lacking
        counts[BACKGROUND] += 0 if is_failed else area - lacking
    return counts if counts.sum() == plan.mask.area else None


def ground_areas(mask: Mask, ground: Ground, level: int) -> NDArray[np.float64]:
    """The area on the ground of every label, 0 to 255, in square metres: piece by piece of a level of the pyramid."""
    array = mask.levels[level]
    height, width = (int(side) for side in array.shape)
    areas = np.zeros(256)
    for y in range(0, height, _PIECE_PX):
        for x in range(0, width, _PIECE_PX):
            box = Box(y, x, min(y + _PIECE_PX, height), min(x + _PIECE_PX, width))
            scaled = Box(*(side << level for side in (box.y0, box.x0, box.y1, box.x1)))
            inside = scaled.intersect(Box(0, 0, *ground.shape))
            areas += np.bincount(mask.read(box, level).ravel(), minlength=256) * (ground.of_box(inside) / box.area)
    return areas


def _area(array: Any) -> int:
    return int(array.shape[0]) * int(array.shape[1])
