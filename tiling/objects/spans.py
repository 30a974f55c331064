"""Spans: pixels of one object side by side in a row. What is summed over an object is summed over these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.objects.object_block import MARGIN, ObjectBlock
from tiling.objects.stretches import starts_of
from tiling.shapes.band import spread

Numbers = NDArray[np.int64]
_LUT_SHARE = 4


@dataclass(frozen=True, slots=True, eq=False)
class RawSpans:
    """All spans of a block with its margin, in raster order.

    Attributes:
        rows: of each, in the block with its margin.
        starts: the first column of each there.
        stops: the column after its last one.
        ids: the object of each, never 0.
    """

    rows: Numbers
    starts: Numbers
    stops: Numbers
    ids: NDArray[Any]

    @classmethod
    def of(cls, labels: NDArray[Any]) -> RawSpans:
        """Of contiguous labels."""
        height, width = labels.shape
        bounds = starts_of(labels)
        ids = labels.ravel()[bounds]
        real = np.flatnonzero(ids)
        ends = np.append(bounds[1:], height * width)[real]
        rows, starts = np.divmod(bounds[real], width)
        return cls(rows, starts, ends - rows * width, ids[real])

    def clipped(self, shape: tuple[int, int], margin: int) -> RawSpans:
        """Those within a margin of the block that is left, in the same coordinates."""
        by = MARGIN - margin
        starts = np.maximum(self.starts, by)
        stops = np.minimum(self.stops, shape[1] - by)
        kept = (starts < stops) & (self.rows >= by) & (self.rows < shape[0] - by)
        return RawSpans(self.rows[kept], starts[kept], stops[kept], self.ids[kept])

    def places(self, width: int, margin: int) -> Numbers:
        """Their pixels in flat rows of that width, from which a margin was cut."""
        return spread((self.rows - margin) * width + self.starts - margin, self.stops - self.starts)


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
    def of(cls, block: ObjectBlock, raw: RawSpans) -> Spans:
        """Of a block with an object in it, from its spans without the margin."""
        order = np.argsort(raw.ids, kind="stable")
        ids = raw.ids[order]
        first = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
        return cls(
            ids[first].astype(np.int32),
            first,
            raw.rows[order] - MARGIN + block.origin[0],
            raw.starts[order] - MARGIN + block.origin[1],
            (raw.stops - raw.starts)[order],
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
