"""Convex hulls of objects as pixels, in whole numbers: the same whatever parts an object came in.

Of an object's pixels only those at corners of its hull matter: a left and a right chain of them, by row. The hull of
parts that were put together is that of their corners. Its area is scikit-image's `area_convex`: the pixels whose
centres lie in the hull of all pixels' edge middles, or on its border.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tiling.objects.spans import Numbers, Spans

_PASSES = 24
ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Leftmost corners of every object's hull, sorted by object and row; of right sides with negative columns.

    Attributes:
        ids: the object of each corner.
        y: its row.
        x: its column.
    """

    ids: NDArray[np.int32]
    y: NDArray[np.int32]
    x: NDArray[np.int32]

    @classmethod
    def of(cls, ids: NDArray[np.int32], y: Numbers, x: Numbers) -> Chain:
        """Of one column for each row, sorted by object and row."""
        kept = convex(ids, y, x)
        return cls(ids[kept], y[kept].astype(np.int32), x[kept].astype(np.int32))

    @classmethod
    def joined(cls, chains: Iterable[Chain]) -> Chain:
        """Of parts of the same objects."""
        parts = [*chains]
        if len(parts) == 1:
            return parts[0]
        ids = np.concatenate([part.ids for part in parts])
        y = np.concatenate([part.y for part in parts]).astype(np.int64)
        x = np.concatenate([part.x for part in parts]).astype(np.int64)
        return cls.of(*leftmost(ids, y, x))

    def where(self, kept: NDArray[np.bool_]) -> Chain:
        """Some of the corners."""
        return Chain(self.ids[kept], self.y[kept], self.x[kept])


@dataclass(frozen=True, slots=True, eq=False)
class Hulls:
    """Both sides of every object's hull."""

    left: Chain
    right: Chain

    @classmethod
    def of(cls, spans: Spans) -> Hulls:
        """Of the objects of a block."""
        per_object = np.diff(spans.first, append=spans.y.size)
        ids = np.repeat(spans.ids, per_object)
        begins = np.concatenate([[True], (ids[1:] != ids[:-1]) | (spans.y[1:] != spans.y[:-1])])
        ends = np.concatenate([begins[1:], [True]])
        right = -(spans.x + spans.counts - 1)
        return cls(
            Chain.of(ids[begins], spans.y[begins], spans.x[begins]),
            Chain.of(ids[ends], spans.y[ends], right[ends]),
        )

    @classmethod
    def joined(cls, hulls: Iterable[Hulls]) -> Hulls:
        """Of parts of the same objects."""
        parts = [*hulls]
        return cls(Chain.joined(part.left for part in parts), Chain.joined(part.right for part in parts))

    def split(self, wanted: NDArray[np.int32]) -> tuple[Hulls, Hulls]:
        """Those of some objects, ascending, and those of the others."""
        masks = [_among(chain.ids, wanted) for chain in (self.left, self.right)]
        return (
            Hulls(self.left.where(masks[0]), self.right.where(masks[1])),
            Hulls(self.left.where(~masks[0]), self.right.where(~masks[1])),
        )

    def areas(self, ids: NDArray[np.int32], y0: Numbers, y1: Numbers) -> Numbers:
        """Pixels in the hull of each object: all objects that there are, ascending, with their rows."""
        found = np.zeros(ids.size, np.int64)
        left, right = _widened(self.left), _widened(self.right)
        for part in _batches(y1 - y0):
            heights = (y1 - y0)[part]
            ends = heights.cumsum()
            objects = np.repeat(ids[part], heights)
            rows = np.arange(ends[-1]) - np.repeat(ends - heights - y0[part], heights)
            widths = 1 - _columns(right, objects, rows) - _columns(left, objects, rows)
            found[part] = np.add.reduceat(widths, ends - heights)
        return found


def leftmost(ids: NDArray[np.int32], y: Numbers, x: Numbers) -> tuple[NDArray[np.int32], Numbers, Numbers]:
    """One column for each object and row, sorted."""
    order = _by_object(ids, y, x)
    ids, y, x = ids[order], y[order], x[order]
    first = np.ones(ids.size, np.bool_)
    first[1:] = (ids[1:] != ids[:-1]) | (y[1:] != y[:-1])
    return ids[first], y[first], x[first]


def _by_object(ids: NDArray[np.int32], y: Numbers, x: Numbers) -> NDArray[np.intp]:
    """The order by object, row and column: by one key where 64 bits hold it, which is sorted many times faster."""
    if not ids.size:
        return np.empty(0, np.intp)
    low_y, low_x = int(y.min()), int(x.min())
    tall, wide = int(y.max()) - low_y + 1, int(x.max()) - low_x + 1
    if (int(ids.max()) + 1) * tall * wide > np.iinfo(np.int64).max:
        return np.lexsort((x, y, ids))
    return np.argsort((ids.astype(np.int64) * tall + (y - low_y)) * wide + (x - low_x), kind="stable")


def convex(ids: NDArray[np.int32], y: Numbers, x: Numbers) -> NDArray[np.intp]:
    """Places of the points that are corners of the least convex function of y that no point of their object is below.

    What lies on or right of a line between two others is no corner, whatever else is there: all such points go at
    once, until none does.
    """
    alive = np.arange(ids.size)
    for _ in range(_PASSES):
        drop = _flat(ids[alive], y[alive], x[alive])
        if not drop.any():
            return alive
        alive = alive[~drop]
    # Shapes that lose a corner at a time, a spiral's arms say, are walked instead.
    drop = _flat(ids[alive], y[alive], x[alive])
    kept = np.ones(alive.size, np.bool_)
    for number in np.unique(ids[alive][drop]).tolist():
        first, last = np.searchsorted(ids[alive], [number, number + 1])
        kept[first:last] = _walked(y[alive[first:last]].tolist(), x[alive[first:last]].tolist())
    return alive[kept]


def _flat(ids: NDArray[np.int32], y: Numbers, x: Numbers) -> NDArray[np.bool_]:
    """Points that lie on or right of the line between their neighbours."""
    drop = np.zeros(ids.size, np.bool_)
    if ids.size > 2:
        inside = ids[:-2] == ids[2:]
        bent = (x[1:-1] - x[:-2]) * (y[2:] - y[:-2]) >= (x[2:] - x[:-2]) * (y[1:-1] - y[:-2])
        drop[1:-1] = inside & bent
    return drop


def _walked(y: list[int], x: list[int]) -> list[bool]:
    """Corners of one object, point by point."""
    chain: list[int] = []
    for place in range(len(y)):
        while len(chain) > 1:
            a, b = chain[-2], chain[-1]
            if (x[b] - x[a]) * (y[place] - y[a]) < (x[place] - x[a]) * (y[b] - y[a]):
                break
            chain.pop()
        chain.append(place)
    corners = set(chain)
    return [place in corners for place in range(len(y))]


def _widened(chain: Chain) -> tuple[NDArray[np.int32], Numbers, Numbers]:
    """A chain of the middles of pixels' edges, in halves of pixels."""
    y, x = 2 * chain.y.astype(np.int64), 2 * chain.x.astype(np.int64)
    ids, y, x = leftmost(
        np.concatenate([chain.ids] * 3), np.concatenate([y - 1, y, y + 1]), np.concatenate([x, x - 1, x])
    )
    kept = convex(ids, y, x)
    return ids[kept], y[kept], x[kept]


def _columns(chain: tuple[NDArray[np.int32], Numbers, Numbers], ids: NDArray[np.int32], rows: Numbers) -> Numbers:
    """The first whole column in the hull, of each row of an object."""
    of, y, x = chain
    low = int(y.min())
    span = int(y.max()) - low + 1
    keys = of.astype(np.int64) * span + (y - low)
    at = np.searchsorted(keys, ids.astype(np.int64) * span + (2 * rows - low), side="right") - 1
    tall = y[at + 1] - y[at]
    return -((-(x[at] * tall + (x[at + 1] - x[at]) * (2 * rows - y[at]))) // (2 * tall))


def _batches(heights: Numbers) -> Iterator[slice]:
    """Objects of some rows at once."""
    if not heights.size:
        return
    of = heights.cumsum() // ROWS_AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), heights.size]
    for first, last in pairwise(bounds):
        yield slice(first, last)


def _among(ids: NDArray[np.int32], wanted: NDArray[np.int32]) -> NDArray[np.bool_]:
    if not wanted.size:
        return np.zeros(ids.size, np.bool_)
    return wanted[np.minimum(np.searchsorted(wanted, ids), wanted.size - 1)] == ids
