"""The levels of a mask or of probabilities as tiles of a TIFF, a row of tiles at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tiling.export.rows import rows_of
from tiling.runs.pyramid import Pyramid

TILE_PX = 512
BIG_BYTES = 2**31
"""From this size on the file is a BigTIFF; compressed it may stay smaller, which nobody knows beforehand."""


def is_big(pyramid: Pyramid) -> bool:
    """True if 32-bit offsets might not do."""
    return int(np.prod(pyramid.levels[0].shape, dtype=np.int64)) >= BIG_BYTES


def tiles_of(pyramid: Pyramid, level: int, channel: int | None = None, fill: int = 0) -> Iterator[NDArray[np.uint8]]:
    """The tiles of a level, or of one channel of it, row by row; what lies beyond the image is `fill`."""
    for rows in rows_of(pyramid, level, TILE_PX):
        rows_YX = rows if channel is None else rows[channel]
        height, width = rows_YX.shape
        for y in range(0, height, TILE_PX):
            for x in range(0, width, TILE_PX):
                tile = rows_YX[y : y + TILE_PX, x : x + TILE_PX]
                if tile.shape != (TILE_PX, TILE_PX):
                    margins = ((0, TILE_PX - tile.shape[0]), (0, TILE_PX - tile.shape[1]))
                    tile = np.pad(tile, margins, constant_values=fill)
                yield np.ascontiguousarray(tile)
