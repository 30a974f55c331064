"""Moments of objects: sums of rows and columns as whole numbers, and what shape they say.

Second moments outgrow 64 bits where an object fills a slide: they are kept in two halves, `high * 2**21 + low`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.objects.parts import Column, Columns, column
from tiling.objects.spans import Numbers, Spans

_HALF = 21
_SAFE = 2.0**62
_SECOND = ("yy", "xx", "xy")


def summed(spans: Spans) -> Columns:
    """Pixels, box and moments of the objects of a block."""
    y, x, count = spans.y, spans.x, spans.counts
    last_x = x + count - 1
    sum_x = (x + last_x) * count // 2
    sum_xx = count * x * x + x * count * (count - 1) + (count - 1) * count * (2 * count - 1) // 6
    found: list[Column] = [
        column("pixels", "sum", spans.sums(count)),
        column("y0", "min", y[spans.first]),
        column("x0", "min", np.minimum.reduceat(x, spans.first)),
        column("y1", "max", y[spans.last] + 1),
        column("x1", "max", np.maximum.reduceat(last_x, spans.first) + 1),
        column("y", "sum", spans.sums(y * count)),
        column("x", "sum", spans.sums(sum_x)),
    ]
    for name, values in zip(_SECOND, (y * y * count, sum_xx, y * sum_x), strict=True):
        found.append(column(f"{name}_high", "sum", spans.sums(values >> _HALF)))
        found.append(column(f"{name}_low", "sum", spans.sums(values & ((1 << _HALF) - 1))))
    return Columns(found)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The ellipse with an object's own second moments, as `skimage.measure.regionprops` describes it.

    Attributes:
        centroid: `(n, 2)` of y and x, 0 in the middle of the first pixel.
        second: `(n, 3)` of central moments for each pixel: yy, xx, xy.
    """

    centroid: NDArray[np.float64]
    second: NDArray[np.float64]

    @classmethod
    def of(cls, columns: Columns) -> Shape:
        """Of whole objects."""
        pixels = columns["pixels"]
        centroid = [columns[f"{axis}0"] + (columns[axis] - pixels * columns[f"{axis}0"]) / pixels for axis in "yx"]
        return cls(np.column_stack(centroid), np.column_stack(_central(columns)))

    def scaled(self, y: float, x: float) -> Shape:
        """The ellipse where a pixel's sides are those; the centroid stays."""
        return Shape(self.centroid, self.second * (y * y, x * x, y * x))

    @property
    def axes(self) -> NDArray[np.float64]:
        """`(n, 2)`, whole lengths of the major and the minor axis."""
        return 4 * np.sqrt(np.column_stack(self._eigenvalues()))

    @property
    def eccentricity(self) -> NDArray[np.float64]:
        """0 of a circle, 1 of a line."""
        large, small = self._eigenvalues()
        safe = np.where(large > 0, large, 1)
        return np.where(large > 0, np.sqrt(np.clip(1 - small / safe, 0, 1)), 0.0)

    @property
    def orientation(self) -> NDArray[np.float64]:
        """Angle between the rows' axis and the major one, in radians, anticlockwise."""
        yy, xx, xy = self.second.T
        return np.where(xx == yy, np.where(xy > 0, np.pi / 4, -np.pi / 4), 0.5 * np.arctan2(2 * xy, yy - xx))

    def _eigenvalues(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        yy, xx, xy = self.second.T
        middle, reach = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        return middle + reach, np.maximum(middle - reach, 0)


def _central(columns: Columns) -> tuple[NDArray[np.float64], ...]:
    """Second moments about the centroid for each pixel: yy, xx, xy."""
    n, y0, x0 = columns["pixels"], columns["y0"], columns["x0"]
    y, x = columns["y"] - n * y0, columns["x"] - n * x0
    yy, xx, xy = (_whole(columns, name) for name in _SECOND)
    # From the corner of its own box, where all but the largest objects' fit 64 bits: what overflows on the way there
    # does so both ways.
    yy = yy - 2 * y0 * columns["y"] + n * y0 * y0
    xx = xx - 2 * x0 * columns["x"] + n * x0 * x0
    xy = xy - y0 * columns["x"] - x0 * columns["y"] + n * y0 * x0
    sides = np.maximum(columns["y1"] - y0, columns["x1"] - x0).astype(np.float64)
    large = (n * sides) ** 2 >= _SAFE
    square = np.where(large, 1, n * n)
    found = [(n * m - p) / square for m, p in ((yy, y * y), (xx, x * x), (xy, y * x))]
    for at in np.flatnonzero(large).tolist():
        for values, value in zip(found, _exactly(columns, at), strict=True):
            values[at] = value
    return tuple(found)


def _whole(columns: Columns, name: str) -> Numbers:
    """A second moment as far as 64 bits hold it."""
    return (columns[f"{name}_high"] << _HALF) + columns[f"{name}_low"]


def _exactly(columns: Columns, at: int) -> tuple[float, float, float]:
    """Central moments of one object in numbers without end."""
    n, y, x = (int(columns[name][at]) for name in ("pixels", "y", "x"))
    yy, xx, xy = ((int(columns[f"{name}_high"][at]) << _HALF) + int(columns[f"{name}_low"][at]) for name in _SECOND)
    return (n * yy - y * y) / (n * n), (n * xx - x * x) / (n * n), (n * xy - y * x) / (n * n)
