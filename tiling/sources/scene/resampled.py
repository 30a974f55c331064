"""Resampling of a member onto the grid of its scene, each pixel from its own absolute position alone.

The rules are those of GDAL's warper. A pixel of the grid that is `nearest` or `bilinear` holds data where the member's
pixel under its centre does; bilinear values are between the four nearest centres, those without data without weight. An
`average` is that of all data under the pixel, which is taken for the upright rectangle between two of its corners, and
holds data where any of that does. Integers are rounded half up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.sources.scene.grid import Grid, Placing
from tiling.sources.scene.member import Seen
from tiling.sources.scene.methods import Method

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_ROUNDING_PX = 1e-10
"""By how much GDAL's warper moves places, so that what lies on an edge but for rounding doesn't fall before it."""
_MOST_PX = 16 * 1024**2
"""Pixels of a member that are read at once; of a member with finer pixels a box of the grid covers many."""
_MOST_POINTS = 512 * 1024
"""Pixels of the grid that are resampled at once."""


def working_bytes(bands: int) -> int:
    """The most that resampling of so many bands holds besides the pixels that it reads and gives."""
    return _MOST_POINTS * 8 * (12 + 4 * bands)


def resampled(
    grid: Grid,
    placing: Placing,
    box: Box,
    read: Callable[[Box], Seen],
    bands: int,
    dtype: np.dtype[np.generic],
    method: Method = "bilinear",
) -> Seen:
    """A box of the grid as a member shows it; `read` gives boxes of the member's own pixels."""
    if box.area > _MOST_POINTS:
        return _in_halves(box, lambda half: resampled(grid, placing, half, read, bands, dtype, method))
    height, width = placing.shape
    if method == "average":
        y0, x0, y1, x1 = _corners(grid, placing, box)
        inside = (y1 > 0) & (x1 > 0) & (y0 < height) & (x0 < width)  # what is no number is nowhere
    else:
        y0, x0 = y1, x1 = grid.places(box, placing)
        inside = (y0 >= 0) & (x0 >= 0) & (y0 < height) & (x0 < width)
    if not inside.any():
        nowhere = np.zeros((*box.shape, 1), np.bool_)
        return Seen(np.zeros((*box.shape, bands), dtype), nowhere, nowhere)
    y0, x0, y1, x1 = y0[inside], x0[inside], y1[inside], x1[inside]
    under = Box(
        max(0, int(y0.min() - 0.5)),
        max(0, int(x0.min() - 0.5)),
        min(height, int(y1.max() + 0.5) + 1),
        min(width, int(x1.max() + 0.5) + 1),
    )
    if under.height * under.width > _MOST_PX and max(box.shape) > 1:
        return _in_halves(box, lambda half: resampled(grid, placing, half, read, bands, dtype, method))
    seen = read(under)
    pixels = np.zeros((*box.shape, bands), dtype)
    if method == "average":
        pixels[inside], within, held = _averages(seen, under, placing.shape, (y0, x0, y1, x1), dtype)
    else:
        nearest = _nearest(y0, height) - under.y0, _nearest(x0, width) - under.x0
        within, held = seen.inside[nearest], seen.held[nearest]
        pixels[inside] = (
            seen.pixels[nearest].astype(dtype) if method == "nearest" else _between(seen, under, y0, x0, nearest, dtype)
        )
    return Seen(pixels, _spread(inside, within), _spread(inside, held))


def resampled_bands(
    grid: Grid,
    placing: Placing,
    box: Box,
    read: Callable[[Box], Seen],
    dtype: np.dtype[np.generic],
    methods: tuple[Method, ...],
) -> Seen:
    """The same for a member whose bands have a method each."""
    count = len(methods)
    if len(set(methods)) == 1:
        return resampled(grid, placing, box, read, count, dtype, methods[0])
    pixels = np.empty((*box.shape, count), dtype)
    inside, held = np.empty((2, *box.shape, count), np.bool_)
    for method in dict.fromkeys(methods):
        at = [band for band in range(count) if methods[band] == method]
        seen = resampled(grid, placing, box, lambda own, at=at: _of_bands(read(own), at), len(at), dtype, method)
        pixels[..., at], inside[..., at], held[..., at] = seen.pixels, seen.inside, seen.held
    return Seen(pixels, inside, held)


def _of_bands(seen: Seen, bands: list[int]) -> Seen:
    inside, held = (each if each.shape[2] == 1 else each[..., bands] for each in (seen.inside, seen.held))
    return Seen(seen.pixels[..., bands], inside, held)


def _in_halves(box: Box, seen: Callable[[Box], Seen]) -> Seen:
    """Pixels that are seen in a box, each half of it apart."""
    axis = 0 if box.height >= box.width else 1
    if axis == 0:
        middle = (box.y0 + box.y1) // 2
        halves = Box(box.y0, box.x0, middle, box.x1), Box(middle, box.x0, box.y1, box.x1)
    else:
        middle = (box.x0 + box.x1) // 2
        halves = Box(box.y0, box.x0, box.y1, middle), Box(box.y0, middle, box.y1, box.x1)
    one, other = (seen(half) for half in halves)

    def joined(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        bands = max(first.shape[2], second.shape[2])  # where nothing is inside, one flag stands for all bands
        wide = [np.broadcast_to(each, (*each.shape[:2], bands)) for each in (first, second)]
        return np.concatenate(wide, axis=axis)

    inside, held = (joined(a, b).astype(np.bool_) for a, b in ((one.inside, other.inside), (one.held, other.held)))
    return Seen(joined(one.pixels, other.pixels), inside, held)


def _nearest(places: Floats, length: int) -> Whole:
    """Numbers of the pixels under places."""
    return np.minimum(np.floor(places + _ROUNDING_PX).astype(np.int64), length - 1)


def _corners(grid: Grid, placing: Placing, box: Box) -> tuple[Floats, Floats, Floats, Floats]:
    """Least and greatest rows and columns of a member between a pixel's first corner and its last."""
    (ya, xa), (yb, xb) = (grid.places(box, placing, corner) for corner in (0.0, 1.0))
    return np.minimum(ya, yb), np.minimum(xa, xb), np.maximum(ya, yb), np.maximum(xa, xb)


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
            _add(seen, at, np.where(is_there, along * across, 0.0), total, weights)
    held = seen.held[nearest]
    values = np.divide(total, weights, out=np.zeros_like(total), where=(weights > 0) & held)
    return np.where(held, _rounded(values, dtype), seen.pixels[nearest].astype(dtype))


def _averages(
    seen: Seen,
    under: Box,
    shape: tuple[int, int],
    corners: tuple[Floats, Floats, Floats, Floats],
    dtype: np.dtype[np.generic],
) -> tuple[npt.NDArray[np.generic], Flags, Flags]:
    """Averages of what lies between corners `(point)`, `(point, band)`; where any is inside; and where any is data."""
    y0, x0, y1, x1 = corners
    rows, cols = _Stretch(y0, y1, shape[0]), _Stretch(x0, x1, shape[1])
    count, bands = len(y0), seen.pixels.shape[2]
    total, weights = np.zeros((count, bands)), np.zeros((count, seen.held.shape[2]))
    within = np.zeros((count, seen.inside.shape[2]), np.bool_)
    for down in range(rows.most):
        y, along = rows.at(down, under.y0, under.height)
        for right in range(cols.most):
            x, across = cols.at(right, under.x0, under.width)
            weight = along * across
            _add(seen, (y, x), weight, total, weights)
            within |= seen.inside[y, x] & (weight > 0)[:, np.newaxis]
    values = np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
    first = rows.first - under.y0, cols.first - under.x0
    held = weights > 0
    return np.where(held, _rounded(values, dtype), seen.pixels[first].astype(dtype)), within, held


class _Stretch:
    """Pixels along an axis that places from `low` to `high` cover, and how much of each."""

    def __init__(self, low: Floats, high: Floats, length: int) -> None:
        self._low, self._high = np.clip(low, 0, length), np.clip(high, 0, length)
        first = np.floor(self._low + _ROUNDING_PX).astype(np.int64)
        self.first = np.minimum(first, length - 1)
        self._end = np.maximum(np.ceil(self._high - _ROUNDING_PX).astype(np.int64), self.first + 1)
        self.most = int((self._end - self.first).max())

    def at(self, number: int, begin: int, length: int) -> tuple[Whole, Floats]:
        """The pixels of that number from the first, counted from `begin`, and their weights; 0 where there is none."""
        pixel = self.first + number
        part = np.minimum(pixel + 1, self._high) - np.maximum(pixel, self._low)
        weight = np.where(self._end - self.first == 1, 1.0, np.clip(part, 0.0, 1.0))
        return np.clip(pixel - begin, 0, length - 1), np.where(pixel < self._end, weight, 0.0)


def _add(seen: Seen, at: tuple[Whole, Whole], weight: Floats, total: Floats, weights: Floats) -> None:
    """Count pixels in by their weights `(point)`, those without data not at all."""
    held = seen.held[at]
    counted = np.where(held, weight[:, np.newaxis], 0.0)
    # No data may be NaN, which no weight of 0 takes away.
    total += np.where(held, seen.pixels[at].astype(np.float64), 0.0) * counted
    weights += counted


def _rounded(values: Floats, dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    return (np.floor(values + 0.5) if dtype.kind in "iu" else values).astype(dtype)


def _spread(inside: Flags, flags: Flags) -> Flags:
    out = np.zeros((*inside.shape, flags.shape[-1]), np.bool_)
    out[inside] = flags
    return out
