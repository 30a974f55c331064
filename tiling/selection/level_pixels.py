"""Pixels of a level that lie under the pixels of a mask, whose grid may be finer or coarser."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.plan import Tile, TilePlan


def level_pixels(tile: Tile, plan: TilePlan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the level under the centres of a tile's mask pixels.

    The outermost where the image covers a mask pixel in part.
    """
    scale, valid = plan.grid.scale, tile.valid
    rows = _centres(valid.y0, valid.y1, float(scale[0]), plan.extent[0])
    return rows, _centres(valid.x0, valid.x1, float(scale[1]), plan.extent[1])


def _centres(start: int, stop: int, scale: float, extent: int) -> NDArray[np.int64]:
    return np.minimum(np.floor((np.arange(start, stop) + 0.5) / scale).astype(np.int64), extent - 1)
