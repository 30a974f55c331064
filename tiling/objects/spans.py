"""Spans: pixels of one object side by side in a row. What is summed over an object is summed over these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.objects.object_block import MARGIN, ObjectBlock

Numbers = NDArray[np.int64]
_LUT_SHARE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """The spans of a block, sorted by object, then by row and column.

    Attributes:
        ids: of the block's objects, ascending.
        first: where each object's spans begin; they end where the next one's do.
        y: row of each span in the image.
        x: first column of each in the image.
        counts: pixels of each.
        order: places of the sorted spans in raster order.
    """

    ids: NDArray[np.int32]
    first: Numbers
    y: Numbers
    x: Numbers
    counts: Numbers
    order: Numbers

    @classmethod
    def of(cls, block: ObjectBlock, inner: NDArray[np.integer[Any]]) -> Spans:
        """Of a block with an object in it; `inner` are its labels without the margin."""
        width = inner.shape[1]
        is_object = inner != 0
        change = inner[:, 1:] != inner[:, :-1]
        begins, ends = is_object, is_object.copy()
        begins[:, 1:] &= change
        ends[:, :-1] &= change
        starts, stops = np.flatnonzero(begins), np.flatnonzero(ends) + 1
        of_span = inner.ravel()[starts]
        order = np.argsort(of_span, kind="stable")
        sorted_ids = of_span[order]
        first = np.flatnonzero(np.concatenate([[True], sorted_ids[1:] != sorted_ids[:-1]]))
        rows, cols = np.divmod(starts[order], width)
        return cls(
            sorted_ids[first].astype(np.int32),
            first,
            rows + block.origin[0],
            cols + block.origin[1],
            (stops - starts)[order],
            order,
        )

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """Over each object, of a whole number for each span; exact."""
        return np.add.reduceat(values, self.first)

    @property
    def last(self) -> Numbers:
        """Each object's last span."""
        return np.concatenate([self.first[1:], [self.y.size]]) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Places of identifiers among those of a block."""

    ids: NDArray[np.int32]
    _lut: NDArray[np.int32] | None

    @classmethod
    def of(cls, ids: NDArray[np.int32], pixels: int) -> Index:
        """A table of all identifiers in between, where that isn't larger than the block itself."""
        span = int(ids[-1]) - int(ids[0]) + 1
        if span > _LUT_SHARE * pixels:
            return cls(ids, None)
        lut = np.zeros(span, np.int32)
        lut[ids - ids[0]] = np.arange(ids.size, dtype=np.int32)
        return cls(ids, lut)

    def at(self, wanted: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """Of identifiers that are there."""
        if self._lut is None:
            return np.searchsorted(self.ids, wanted)
        return self._lut[wanted - self.ids[0]]


def inner_labels(block: ObjectBlock) -> NDArray[np.integer[Any]]:
    """A block's labels without its margin, as one contiguous array."""
    return np.ascontiguousarray(block.labels[MARGIN:-MARGIN, MARGIN:-MARGIN])
