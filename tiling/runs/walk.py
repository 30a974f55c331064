"""Order in which the tiles of a run are read.

Row by row, an image of tiles is decoded anew for each row of cores where their halos overlap: what the row above has
decoded no longer fits into the memory that keeps segments. Down strips of a few cores each, it still does, since each
tile gives up what no later one reads (`TilePlan.last_read`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiling.sources.cache import DEFAULT_CACHE_BYTES

if TYPE_CHECKING:
    from tiling.plan import TilePlan
    from tiling.source import ImageSource

STRIP_PX = 4096
"""Width of the narrowest strip; others are that several times."""
SEAM_BYTES = DEFAULT_CACHE_BYTES // 2
"""Of two rows of segments across a strip, which the next row of cores reads too: 13 MB of RGB in segments of 256 px."""
WIDEST_SEGMENT_PX = 1024
"""Wider ones would be decoded again for each strip."""


def strip_px(source: ImageSource) -> int | None:
    """Width of the strips in which an image is read; None where rows are as good."""
    size = source.segment_size()
    if size is None or size[0] > WIDEST_SEGMENT_PX:
        return None
    width, segment_bytes = size
    return max(1, SEAM_BYTES * width // (2 * segment_bytes) // STRIP_PX) * STRIP_PX


def in_order(plan: TilePlan, tiles: NDArray[np.int64], strip_px: int | None) -> list[int]:
    """Tiles of a plan in the order of reading: row by row, or down one strip after another."""
    if strip_px is None:
        return np.sort(tiles).tolist()
    strips = tiles % plan.shape[1] // max(1, strip_px // plan.core_px)
    return tiles[np.lexsort((tiles, strips))].tolist()
