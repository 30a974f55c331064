"""Segments of a TIFF that were never written: where they are, and what stands in their place.

OpenSlide fills those of an Aperio level from the next finer one, as the scanner's own software does; elsewhere, and
where the finest level has none, they hold no data, as GDAL has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.sources.tiff.plane import Plane

Pixels = npt.NDArray[np.generic]
Mask = npt.NDArray[np.bool_]


def has_gaps(planes: Sequence[Plane]) -> bool:
    """True if a level has segments that were never written."""
    return any(plane.gaps is not None for plane in planes)


def written(planes: Sequence[Plane], box: Box) -> Mask:
    """Mask of the pixels `(y, x)` of a box in segments that were written for all bands."""
    held = np.ones(box.shape, np.bool_)
    for plane in planes:
        for place in gaps_under(plane, box):
            held[place.relative_to(box).slices] = False
    return held


def gaps_under(plane: Plane, box: Box) -> list[Box]:
    """Parts of a box in segments that were never written."""
    if plane.gaps is None:
        return []
    cols = plane.grid.cols
    return [place.intersect(box) for index, place in plane.grid.under(box) if plane.gaps[index // cols, index % cols]]


def is_patchy(level: Sequence[Plane], finer: Sequence[Plane]) -> bool:
    """True if a level lacks segments whose place was written in the next finer one: no true downsample of it."""
    y, x = (fine / own for fine, own in zip(finer[0].size_px, level[0].size_px, strict=True))
    for plane in level:
        whole = Box(0, 0, plane.grid.height, plane.grid.width)
        for place in gaps_under(plane, whole):
            seen = Box(int(place.y0 * y), int(place.x0 * x), int(place.y1 * y), int(place.x1 * x))
            if not seen.is_empty and any(_any_written(each, seen) for each in finer):
                return True
    return False


def fill(
    out: Pixels, box: Box, planes: Sequence[Plane], finer_px: tuple[int, int], read: Callable[[Box], Pixels]
) -> None:
    """Put means of the next finer level, which `read` gives, where `out` has segments that were never written.

    Each pixel is the mean of what it covers, as OpenSlide draws it, and the same in whatever box it is read.
    """
    steps = [fine / own for fine, own in zip(finer_px, planes[0].size_px, strict=True)]
    for plane in planes:
        for place in gaps_under(plane, box):
            rows, cols = (
                _Cover(step, length, *ends)
                for step, length, ends in zip(
                    steps, finer_px, ((place.y0, place.y1), (place.x0, place.x1)), strict=True
                )
            )
            pixels = read(Box(rows.first, cols.first, rows.last, cols.last)).astype(np.float64)
            means = cols.mean(rows.mean(pixels).transpose(1, 0, 2)).transpose(1, 0, 2)
            whole = means if out.dtype.kind == "f" else np.rint(means)
            out[place.relative_to(box).slices] = whole.astype(out.dtype)


@dataclass(frozen=True, slots=True)
class _Cover:
    """Cover of pixels `start` to `stop` by those of a finer level, along one axis."""

    step: float
    length: int  # of the finer level
    start: int
    stop: int

    @property
    def first(self) -> int:
        return min(self.length - 1, int(self.start * self.step))

    @property
    def last(self) -> int:
        return max(self.first + 1, min(self.length, math.ceil(self.stop * self.step)))

    def mean(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of the rows under each pixel, weighed by how much of them it covers, summed in one order."""
        low = np.arange(self.start, self.stop) * self.step
        begin = np.floor(low).astype(np.int64)
        total = np.zeros((len(low), *values.shape[1:]))
        weights = np.zeros(len(low))
        for tap in range(math.ceil(self.step) + 1):
            at = begin + tap
            covered = np.maximum(0.0, np.minimum(low + self.step, at + 1) - np.maximum(low, at))
            covered[at >= self.length] = 0.0
            total += values[np.clip(at - self.first, 0, len(values) - 1)] * covered[:, np.newaxis, np.newaxis]
            weights += covered
        return total / np.maximum(weights, 1e-12)[:, np.newaxis, np.newaxis]


def _any_written(plane: Plane, box: Box) -> bool:
    if plane.gaps is None:
        return True
    grid = plane.grid
    rows = slice(box.y0 // grid.segment_height, -(-box.y1 // grid.segment_height))
    cols = slice(box.x0 // grid.segment_width, -(-box.x1 // grid.segment_width))
    return not bool(plane.gaps[rows, cols].all())
