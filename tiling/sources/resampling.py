"""Pixels of another size, each computed from its own absolute position.

A triangle as wide as two of the larger of both pixels weighs what lies around a pixel's centre: bilinear where pixels
become smaller, with what would alias averaged away where they become larger. Every output pixel is the sum of the same
numbers in the same order whatever box it is read in, so that any split of a read gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box

Pixels = npt.NDArray[np.generic]
Present = npt.NDArray[np.bool_]
Sums = npt.NDArray[Any]  # of a type that holds every input value as it is

PIECE_BYTES = 16 * 1024**2
"""Of the input that is held at once, in the type of the sums."""

LEAST_SHARE = 0.5
"""Of what a pixel is made of, so much has to be data for it to hold data."""

WORKING_BYTES = 8 * PIECE_BYTES
"""The most that resampling holds beside its result: a piece as it is read, in the type of the sums, and the sums."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Sampling along one axis: the centre of output pixel i lies at `(origin + i + 0.5) * step` of the input."""

    length: int  # of the input, in pixels
    step: float  # input pixels per output pixel
    origin: float = 0.0  # in output pixels

    @property
    def support(self) -> float:
        """Half the width of the triangle, in input pixels."""
        return max(1.0, self.step)

    @property
    def taps(self) -> int:
        """Number of input pixels that are looked at for each output pixel, those of weight 0 included."""
        return math.ceil(2 * self.support) + 1

    def firsts(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The first input pixel that is looked at for each output pixel; it may lie outside."""
        return np.floor(self._centres(start, stop) - self.support - 0.5).astype(np.int64) + 1

    def weights(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """`(output pixel, tap)`; each row's sum is 1, what lies outside the input weighs nothing."""
        places = self.firsts(start, stop)[:, np.newaxis] + np.arange(self.taps)
        distance = np.abs(places + 0.5 - self._centres(start, stop)[:, np.newaxis])
        weights = np.maximum(0.0, 1.0 - distance / self.support)
        weights[(places < 0) | (places >= self.length)] = 0.0
        # Summed from left to right: a row's sum must not depend on how many rows there are.
        total = np.zeros(len(weights))
        for tap in range(self.taps):
            total += weights[:, tap]
        return weights / total[:, np.newaxis]

    def seen(self, start: int, stop: int) -> tuple[int, int]:
        """Start and stop of the input pixels that output pixels need."""
        first, last = self.firsts(start, start + 1)[0], self.firsts(stop - 1, stop)[0] + self.taps
        low = min(max(0, int(first)), self.length - 1)
        return low, max(low + 1, min(self.length, int(last)))

    def _centres(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        return (np.arange(start, stop, dtype=np.float64) + self.origin + 0.5) * self.step


@dataclass(frozen=True, slots=True)
class Resampling:
    """Sampling along both axes.

    Attributes:
        bands, dtype: of the pixels, before and after.
        has_gaps: whether there is such a thing as a missing value: NaN, infinities and `gap`. It has no weight, and
            an output pixel of nothing else is missing itself.
        gap: the value that an integer image has in place of missing ones.
    """

    rows: Axis
    cols: Axis
    bands: int
    dtype: np.dtype[np.generic]
    has_gaps: bool = False
    gap: float | None = None

    def read(self, read: Callable[[Box], Pixels], box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box of the output; `read` gives those of a box of the input."""
        seen = self._seen(box)
        if self._is_large(seen, box):
            first, second = self._halves(box)
            return np.concatenate([self.read(read, first), self.read(read, second)], axis=int(first.y0 == second.y0))
        return self._rounded(self._weighed(read(seen), seen, box))

    def read_present(
        self, read: Callable[[Box], tuple[Pixels, Present | None]], box: Box
    ) -> tuple[Pixels, Present | None]:
        """The same where values may be no data: `read` says of each whether it is, and so does what is given back.

        A pixel is made of data alone, and holds data where at least half of its weight lies on some; None where all do.
        What is made of nothing else than no data is `gap`, or NaN, or 0 where there are none.
        """
        seen = self._seen(box)
        if self._is_large(seen, box):
            parts = [self.read_present(read, half) for half in self._halves(box)]
            axis = int(self._halves(box)[0].y0 == self._halves(box)[1].y0)
            pixels = np.concatenate([part[0] for part in parts], axis=axis)
            if all(part[1] is None for part in parts):
                return pixels, None
            whole = [np.ones((*p.shape[:2], 1), np.bool_) if held is None else held for p, held in parts]
            bands = max(held.shape[-1] for held in whole)
            return pixels, np.concatenate([np.broadcast_to(h, (*h.shape[:2], bands)) for h in whole], axis=axis)
        values, held = read(seen)
        if held is None:
            held = np.ones((*values.shape[:2], 1), np.bool_)
        sums, weights = self._divided(values, held, seen, box)
        # A band of a pixel that holds data is data where anything says what it is.
        enough = weights.max(axis=-1, keepdims=True) >= LEAST_SHARE
        found = enough & (weights > 0)
        return self._rounded(sums), None if found.all() else found

    def _seen(self, box: Box) -> Box:
        """The box of the input that a box of the output needs."""
        (y0, y1), (x0, x1) = self.rows.seen(box.y0, box.y1), self.cols.seen(box.x0, box.x1)
        return Box(y0, x0, y1, x1)

    def _is_large(self, seen: Box, box: Box) -> bool:
        return seen.area * self.bands * self._sums.itemsize > PIECE_BYTES and box.area > 1

    @property
    def _sums(self) -> np.dtype[np.generic]:
        """The type of the sums: one that holds every input value as it is."""
        return np.dtype(np.float32 if self.dtype.itemsize <= 2 or self.dtype == np.float32 else np.float64)

    def _halves(self, box: Box) -> tuple[Box, Box]:
        """The box cut across its longer side, in input pixels."""
        if box.width == 1 or (box.height > 1 and box.height * self.rows.step >= box.width * self.cols.step):
            cut = box.y0 + box.height // 2
            return Box(box.y0, box.x0, cut, box.x1), Box(cut, box.x0, box.y1, box.x1)
        cut = box.x0 + box.width // 2
        return Box(box.y0, box.x0, box.y1, cut), Box(box.y0, cut, box.y1, box.x1)

    def _weighed(self, pixels: Pixels, seen: Box, box: Box) -> Sums:
        if not self.has_gaps:
            return self._summed(pixels.astype(self._sums), seen, box)
        held = np.isfinite(pixels)
        if self.gap is not None:
            held &= pixels != self.gap
        return self._divided(pixels, held, seen, box)[0]

    def _divided(self, pixels: Pixels, held: Present, seen: Box, box: Box) -> tuple[Sums, Sums]:
        """Means of the values that are held, and the share of the weight that these have."""
        weights = self._summed(held.astype(self._sums), seen, box)
        sums = self._summed(np.where(held, pixels, 0).astype(self._sums), seen, box)
        empty = np.nan if self.dtype.kind == "f" else 0
        gap = empty if self.gap is None else self.gap
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(weights > 0, sums / weights, np.asarray(gap, self._sums)), weights

    def _summed(self, values: Sums, seen: Box, box: Box) -> Sums:
        """Rows first, then columns; product by product, since a library's matrix product has no fixed order."""
        values = _along_rows(values, self.rows, seen.y0, box.y0, box.y1)
        turned = _along_rows(values.transpose(1, 0, 2), self.cols, seen.x0, box.x0, box.x1)
        return turned.transpose(1, 0, 2)

    def _rounded(self, values: Sums) -> Pixels:
        if self.dtype.kind == "f":
            return np.ascontiguousarray(values, self.dtype)
        limits = np.iinfo(str(self.dtype))
        return np.ascontiguousarray(np.clip(np.rint(values), limits.min, limits.max).astype(self.dtype))


def _along_rows(values: Sums, axis: Axis, first: int, start: int, stop: int) -> Sums:
    """Weighted sums of the rows; `first` is the first one's place in the whole input."""
    places = axis.firsts(start, stop) - first
    weights = axis.weights(start, stop).astype(values.dtype)
    total = np.zeros((stop - start, *values.shape[1:]), values.dtype)
    for tap in range(axis.taps):
        rows = np.clip(places + tap, 0, len(values) - 1)  # what lies outside weighs nothing
        total += values[rows] * weights[:, tap, np.newaxis, np.newaxis]
    return total
