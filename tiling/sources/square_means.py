"""Means of the squares of an image.

Whole numbers whose sums a float32 holds exactly are added as such, which takes little beside decoding; the means are
those of the floats, bit by bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT32_WHOLE = 2**24
"""Up to here a float32 holds every whole number."""


def square_means(pixels: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """The mean of every `factor` x `factor` square of `(y, x, band)`: of the pixels it has that are numbers.

    A square at the right or bottom has fewer pixels; one without a number is NaN.
    """
    if is_summed_whole(pixels.dtype, factor):
        return _whole_means(pixels, factor)
    return float_means(pixels, factor)


def is_summed_whole(dtype: np.dtype[np.generic], factor: int) -> bool:
    """True if a float32 holds the sum of every square exactly, in whatever order its pixels are added."""
    return dtype.kind == "u" and dtype.itemsize <= 2 and _most(dtype) * factor**2 <= FLOAT32_WHOLE


def float_means(pixels: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """The definition, for any pixels."""
    values = pixels.astype(np.float32)
    held = np.isfinite(values)
    sums, counts = _sums(np.where(held, values, 0), factor), _sums(held.astype(np.float32), factor)
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def _sums(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], factor), axis=0)
    return np.add.reduceat(rows, np.arange(0, values.shape[1], factor), axis=1)


def _whole_means(pixels: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """Add whole rows first, then columns of what is left, band by band: both are few long additions."""
    if factor == 1:
        return pixels.astype(np.float32)
    height, width, bands = pixels.shape
    shape = -(-height // factor), -(-width // factor)
    flat: NDArray[Any] = pixels.reshape(height, width * bands)
    is_small = _most(pixels.dtype) * factor < 2**16
    rows: NDArray[Any] = np.zeros((shape[0], width * bands), np.dtype("u2" if is_small else "u4"))
    for first in range(min(factor, height)):
        part = flat[first::factor]
        np.add(rows[: part.shape[0]], part, out=rows[: part.shape[0]])
    counts = np.outer(_counts(height, factor), _counts(width, factor))
    means = np.empty((*shape, bands), np.float32)
    for band in range(bands):
        sums = np.zeros(shape, np.uint32)
        for first in range(min(factor, width)):
            part = rows[:, first * bands + band :: factor * bands]
            sums[:, : part.shape[1]] += part
        np.divide(sums.astype(np.float32), counts, out=means[..., band])
    return means


def _most(dtype: np.dtype[np.generic]) -> int:
    """The greatest number of an unsigned kind."""
    return 2 ** (8 * dtype.itemsize) - 1


def _counts(side: int, factor: int) -> NDArray[np.float32]:
    """The pixels along one side of each square."""
    return np.minimum(factor, side - np.arange(0, side, factor)).astype(np.float32)
