"""A level of a mask or of probabilities from top to bottom, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.pyramid import Pyramid

BAND_PIXELS = 2 * 1024**2
"""Of labels that are polygonised at once: at worst, where every pixel differs from its neighbours, this takes some
hundred bytes of memory for each of them."""
READ_PIXELS = 8 * 1024**2


def rows_of(pyramid: Pyramid, level: int = 0, multiple: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """All rows of a level, the next ones being read while these are used.

    Args:
        pyramid: `(y, x)` or `(channel, y, x)`.
        level: of the pyramid.
        multiple: how many rows come at once is a multiple of this, but for the last ones; the height of its chunks
            when not given, so that none is decoded twice.
    """
    array = pyramid.levels[level]
    height, width = cast("tuple[int, int]", array.shape[-2:])
    unit = multiple or array.chunks[-2]
    channels = array.shape[0] if array.ndim == 3 else 1
    tall = unit * max(1, READ_PIXELS // (unit * width * channels))

    def read(y: int) -> NDArray[np.uint8]:
        return pyramid.read(Box(y, 0, min(y + tall, height), width), level)

    with ThreadPoolExecutor(1) as ahead:
        coming: Future[NDArray[np.uint8]] = ahead.submit(read, 0)
        for y in range(0, height, tall):
            rows = coming.result()
            if y + tall < height:
                coming = ahead.submit(read, y + tall)
            yield rows


def bands_of_labels(pyramid: Pyramid) -> Iterator[NDArray[np.uint8]]:
    """The labels of level 0 in bands that the polygoniser takes at once."""
    for rows in rows_of(pyramid):
        tall = max(1, BAND_PIXELS // rows.shape[-1])
        for y in range(0, rows.shape[0], tall):
            yield rows[y : y + tall]
