"""Resampling of a member onto the grid of its scene, each pixel from its own absolute position alone.

The rules are those of GDAL's warper: a pixel of the grid holds data where the member's pixel under its centre does; its
value is bilinear between the four nearest centres, those without data without weight; integers are rounded half up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.sources.scene.grid import Grid, Placing
from tiling.sources.scene.member import Seen

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


def resampled(
    grid: Grid, placing: Placing, box: Box, read: Callable[[Box], Seen], bands: int, dtype: np.dtype[np.generic]
) -> Seen:
    """A box of the grid as a member shows it; `read` gives boxes of the member's own pixels."""
    rows, cols = grid.places(box, placing)
    height, width = placing.shape
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)  # what is no number is nowhere
    if not inside.any():
        nowhere = np.zeros((*box.shape, 1), np.bool_)
        return Seen(np.zeros((*box.shape, bands), dtype), nowhere, nowhere)
    rows, cols = rows[inside], cols[inside]
    under = Box(
        max(0, int(rows.min() - 0.5)),
        max(0, int(cols.min() - 0.5)),
        min(height, int(rows.max() + 0.5) + 1),
        min(width, int(cols.max() + 0.5) + 1),
    )
    seen = read(under)
    nearest = np.floor(rows).astype(np.int64) - under.y0, np.floor(cols).astype(np.int64) - under.x0
    pixels = np.zeros((*box.shape, bands), dtype)
    pixels[inside] = _between(seen, under, rows, cols, nearest, dtype)
    return Seen(pixels, _spread(inside, seen.inside[nearest]), _spread(inside, seen.held[nearest]))


def _between(
    seen: Seen, under: Box, rows: Floats, cols: Floats, nearest: tuple[Whole, Whole], dtype: np.dtype[np.generic]
) -> npt.NDArray[np.generic]:
    """Values at places `(point)` of a member, `(point, band)`; of what is no data the nearest, as it is."""
    height, width, bands = seen.pixels.shape
    # Weights from the member's corner, so that they are the same to the last bit whatever box is read.
    top, left = np.floor(rows - 0.5), np.floor(cols - 0.5)
    down, right = rows - 0.5 - top, cols - 0.5 - left
    top, left = top.astype(np.int64) - under.y0, left.astype(np.int64) - under.x0
    total, weights = np.zeros((len(rows), bands)), np.zeros((len(rows), seen.held.shape[2]))
    for y, along in ((top, 1 - down), (top + 1, down)):
        for x, across in ((left, 1 - right), (left + 1, right)):
            is_there = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            at = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
            held = seen.held[at]
            weight = np.where(is_there[:, np.newaxis] & held, (along * across)[:, np.newaxis], 0.0)
            # No data may be NaN, which no weight of 0 takes away.
            total += np.where(held, seen.pixels[at].astype(np.float64), 0.0) * weight
            weights += weight
    held = seen.held[nearest]
    values = np.divide(total, weights, out=np.zeros_like(total), where=(weights > 0) & held)
    values = np.floor(values + 0.5) if dtype.kind in "iu" else values
    return np.where(held, values.astype(dtype), seen.pixels[nearest].astype(dtype))


def _spread(inside: npt.NDArray[np.bool_], flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    out = np.zeros((*inside.shape, flags.shape[-1]), np.bool_)
    out[inside] = flags
    return out
