"""Order in which the tiles of a run are read.

Row by row, an image of tiles is decoded anew for each row of cores where their halos overlap: what the row above has
decoded no longer fits into the memory that keeps segments. Down strips of a few cores each, it still does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tiling.plan import TilePlan
    from tiling.source import ImageSource

STRIP_PX = 4096
"""Width of a strip: two rows of cores of 1024 px with 256 px segments are some 20 MB of RGB."""
WIDEST_SEGMENT_PX = 1024
"""Wider ones would be decoded again for each strip."""


def strip_px(source: ImageSource) -> int | None:
    """Width of the strips in which an image is read; None where rows are as good."""
    width = source.segment_width()
    return STRIP_PX if width is not None and width <= WIDEST_SEGMENT_PX else None


def in_order(plan: TilePlan, tiles: NDArray[np.int64], strip_px: int | None) -> list[int]:
    """Tiles of a plan in the order of reading: row by row, or down one strip after another."""
    if strip_px is None:
        return np.sort(tiles).tolist()
    strips = tiles % plan.shape[1] // max(1, strip_px // plan.core_px)
    return tiles[np.lexsort((tiles, strips))].tolist()
