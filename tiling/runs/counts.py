"""Counts of pixels per label."""

from __future__ import annotations

from typing import Any, cast

import dask
import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.georeference.ground_areas import Ground
from tiling.runs.mask import NOT_PREDICTED, Mask

PIXELS_AT_ONCE = 2**22
COUNTED_AT_ONCE = 2**20  # counting makes 8 bytes of each
MOST_PIXELS = 2**31
COMMON = (0, 1, NOT_PREDICTED, 2, 3, 4, 5)
_PIECE_PX = 1024


def count_labels(mask: Mask, *, most_pixels: int = MOST_PIXELS, threads: int = 2) -> tuple[NDArray[np.int64], int]:
    """Count the pixels of every label, 0 to 255, strip by strip.

    Returns:
        The counts, and the level of the pyramid on which they were made: 0, or for a mask of more than `most_pixels`
        the finest that has no more, whose counts are multiplied up and so are near, not exact.
    """
    level = next((n for n, array in enumerate(mask.levels) if _area(array) <= most_pixels), len(mask.levels) - 1)
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
        tasks = [dask.delayed(count)(box) for box in row]
        for found in dask.compute(*tasks, scheduler="threads", num_workers=threads):
            counts += found
    return counts * _area(mask.levels[0]) // _area(array) if level else counts, level


def label_counts(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of pixels of each label, 0 to 255; comparing with the few that most masks have is the quickest."""
    counts, left = np.zeros(256, np.int64), labels.size
    for label in COMMON:
        if not left:
            return counts
        counts[label] = np.count_nonzero(labels == label)
        left -= int(counts[label])
    return np.bincount(labels.ravel(), minlength=256).astype(np.int64) if left else counts


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
