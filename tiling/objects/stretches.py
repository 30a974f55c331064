"""Stretches of pixels of one value in a row: what a block of labels or of objects is, in little room.

A block has far fewer stretches than pixels, and what is asked of it costs by stretches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from tiling.geometry import Box
from tiling.shapes.band import Numbers, spread

_WORD = 8
"""Flags that are looked at together."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """The stretches of a block row by row, background apart.

    Attributes:
        shape: of the block.
        starts: the place of each one's first pixel in the block's pixels, row by row.
        stops: the place after its last one; no stretch reaches into a second row.
        values: of each, never 0.
    """

    shape: tuple[int, int]
    starts: Numbers
    stops: Numbers
    values: NDArray[np.int32]

    @classmethod
    def of(cls, block_YX: NDArray[np.integer]) -> Stretches:
        """Of a dense block."""
        height, width = block_YX.shape
        starts = starts_of(block_YX)
        is_one_piece = block_YX.flags.c_contiguous
        values = block_YX.reshape(-1)[starts] if is_one_piece else block_YX[np.divmod(starts, width)]
        real = np.flatnonzero(values)
        stops = np.append(starts[1:], height * width)[real]
        return cls((height, width), starts[real], stops, values[real].astype(np.int32))

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Stretches:
        """Of a block of background."""
        places = np.empty(0, np.int64)
        return cls(shape, places, places, places.astype(np.int32))

    @property
    def size(self) -> int:
        return self.starts.size

    @property
    def pixels(self) -> Numbers:
        return self.stops - self.starts

    def dense(self) -> NDArray[np.int32]:
        """The block, pixel by pixel."""
        block = np.zeros(self.shape, np.int32)
        self.paint(block, Box(0, 0, *self.shape))
        return block

    def paint(self, into_YX: NDArray[np.int32], at: Box) -> None:
        """Write them into a larger block, of one piece, in which they lie at a box."""
        starts, width = self.starts, into_YX.shape[1]
        if at.shape != into_YX.shape:
            rows, cols = np.divmod(starts, self.shape[1])
            starts = (rows + at.y0) * width + cols + at.x0
        into_YX.reshape(-1)[spread(starts, self.pixels)] = np.repeat(self.values, self.pixels)

    def renamed(self, values: NDArray[np.int32]) -> Stretches:
        """With other values, none of them 0."""
        return replace(self, values=values)

    def valued(self, values: NDArray[np.int32]) -> Stretches:
        """With other values, those of value 0 left out."""
        real = values != 0
        return Stretches(self.shape, self.starts[real], self.stops[real], values[real])

    def with_others(self, others: Stretches) -> Stretches:
        """With stretches of other pixels."""
        starts = np.append(self.starts, others.starts)
        order = np.argsort(starts, kind="stable")
        stops, values = np.append(self.stops, others.stops), np.append(self.values, others.values)
        return Stretches(self.shape, starts[order], stops[order], values[order])

    def cropped(self, box: Box) -> Stretches:
        """Of a part of the block."""
        width = self.shape[1]
        first, last = np.searchsorted(self.starts, [box.y0 * width, box.y1 * width])
        rows, starts = np.divmod(self.starts[first:last], width)
        stops = starts + self.pixels[first:last]
        starts, stops = np.maximum(starts, box.x0) - box.x0, np.minimum(stops, box.x1) - box.x0
        real, rows = starts < stops, (rows - box.y0) * box.width
        return Stretches(box.shape, (rows + starts)[real], (rows + stops)[real], self.values[first:last][real])

    def gaps(self) -> Stretches:
        """Stretches between them, with the value 1."""
        height, width = self.shape
        rows = np.arange(height, dtype=np.int64) * width
        # Two parts that are sorted each: merging them takes a thirtieth of sorting.
        starts = np.sort(np.append(rows, self.stops), kind="stable")
        stops = np.sort(np.append(rows + width, self.starts), kind="stable")
        real = starts < stops
        return Stretches(self.shape, starts[real], stops[real], np.ones(int(real.sum()), np.int32))

    def components(self) -> NDArray[np.int32]:
        """The number of each one's component, from 1 in the order of their first pixels.

        A component is what is of one value and shares edges.
        """
        upper, lower = self.touching_below(self)
        same = self.values[upper] == self.values[lower]
        upper, lower = upper[same], lower[same]
        if not self.size:
            return np.empty(0, np.int32)
        graph = csr_array((np.ones(upper.size, np.int8), (upper, lower)), shape=(self.size, self.size))
        return in_order(connected_components(graph, directed=False)[1])

    def touching_below(self, other: Stretches) -> tuple[Numbers, Numbers]:
        """Pairs of a stretch and one of the other's in the next row that share an edge."""
        width = self.shape[1]
        first = np.searchsorted(other.stops, self.starts + width, side="right")
        counts = np.searchsorted(other.starts, self.stops + width, side="left") - first
        return np.repeat(np.arange(self.size), counts), spread(first, counts)

    def beside(self, other: Stretches) -> tuple[Numbers, Numbers]:
        """Pairs of a stretch and one of the other's in the same row that share an edge."""
        width, found = self.shape[1], []
        for mine, others, side in ((self.starts, other.stops, self.starts), (self.stops, other.starts, self.stops)):
            at = np.searchsorted(others, mine)
            hit = np.flatnonzero((at < other.size) & (side % width != 0))
            hit = hit[others[at[hit]] == mine[hit]]
            found.append((hit, at[hit]))
        return np.concatenate([found[0][0], found[1][0]]), np.concatenate([found[0][1], found[1][1]])

    def edges(self) -> Edges:
        """The block's outermost pixels."""
        height, width = self.shape
        top, bottom = np.zeros(width, np.int32), np.zeros(width, np.int32)
        for line, y in ((top, 0), (bottom, height - 1)):
            first, last = np.searchsorted(self.starts, [y * width, (y + 1) * width])
            starts, pixels = self.starts[first:last] - y * width, self.pixels[first:last]
            line[spread(starts, pixels)] = np.repeat(self.values[first:last], pixels)
        left, right = np.zeros(height, np.int32), np.zeros(height, np.int32)
        at = self.starts % width == 0
        left[self.starts[at] // width] = self.values[at]
        at = self.stops % width == 0
        right[(self.stops[at] - 1) // width] = self.values[at]
        return Edges(top, bottom, left, right)


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """The outermost pixels of a block, 0 where they are of nothing."""

    top: NDArray[np.int32]
    bottom: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]

    def raised(self, by: int) -> Edges:
        """With greater numbers where there are any."""
        lines = (np.where(line > 0, line + by, line) for line in (self.top, self.bottom, self.left, self.right))
        return Edges(*(line.astype(np.int32) for line in lines))


def starts_of(block_YX: NDArray[np.integer]) -> Numbers:
    """Places of pixels that differ from the one before them in their row, or have none: the one look at every pixel."""
    size = block_YX.size
    flags = np.zeros(-(-size // _WORD) * _WORD, np.bool_)
    begins = flags[:size].reshape(block_YX.shape)
    if block_YX.flags.c_contiguous:
        # As one row it is compared several times faster; the first column is set in any case.
        flat = block_YX.reshape(-1)
        np.not_equal(flat[1:], flat[:-1], out=flags[1:size])
    else:
        np.not_equal(block_YX[:, 1:], block_YX[:, :-1], out=begins[:, 1:])
    begins[:, 0] = True
    # Most flags aren't set: eight are looked at together, as truth values, which are found faster than numbers.
    hit = np.flatnonzero(flags.view(np.uint64) != 0)
    word, byte = np.nonzero(flags.reshape(-1, _WORD)[hit])
    return hit[word] * _WORD + byte


def in_order(of: NDArray[np.integer]) -> NDArray[np.int32]:
    """Numbers from 1 in the place of others, in the order in which these first appear."""
    values, first, inverse = np.unique(of, return_index=True, return_inverse=True)
    ranks = np.empty(values.size, np.int32)
    ranks[np.argsort(first, kind="stable")] = np.arange(1, values.size + 1)
    return ranks[inverse]
