"""Union of what blocks hold parts of, over their borders alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from tiling.objects.blocks import Block
from tiling.objects.stretches import Edges

Pairs = NDArray[np.int32]


class Seams:
    """Pixels on either side of the borders of blocks that come row by row; holds one row of blocks' edges."""

    def __init__(self) -> None:
        self._right: Edges | None = None
        self._above: dict[int, NDArray[np.int32]] = {}

    def add(self, block: Block, edges: Edges) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """The lines that a block shares with those before it, as (theirs, its own)."""
        if block.col and self._right is not None:
            yield self._right.right, edges.left
        if block.row:
            yield self._above[block.col], edges.top
        self._right, self._above[block.col] = edges, edges.bottom


class Union:
    """Parts numbered from 1 over all blocks, and pairs of parts that are one."""

    def __init__(self) -> None:
        self.count = 0
        self._pairs: list[Pairs] = []

    def add(self, parts: int) -> int:
        """Number the parts of a block; returns by how much theirs are raised."""
        self.count += parts
        return self.count - parts

    def join(self, theirs: NDArray[np.int32], own: NDArray[np.int32]) -> None:
        """Parts that share an edge where two lines of pixels lie side by side."""
        self._pairs.append(distinct(theirs, own, (theirs > 0) & (own > 0)))

    def solve(self, kinds: NDArray[np.integer] | None = None) -> NDArray[np.int32]:
        """The number of the whole that each part belongs to, from 1, with a 0 before all.

        With `kinds`, one for each part, only parts of one kind are one.
        """
        pairs = np.concatenate([*self._pairs, np.empty((2, 0), np.int32)], axis=1) - 1
        if kinds is not None:
            pairs = pairs[:, kinds[pairs[0]] == kinds[pairs[1]]]
        if not self.count:
            return np.zeros(1, np.int32)
        if not pairs.size:
            return np.arange(self.count + 1, dtype=np.int32)
        ones = np.ones(pairs.shape[1], np.int8)
        graph = csr_array((ones, (pairs[0], pairs[1])), shape=(self.count, self.count))
        return np.append(0, connected_components(graph, directed=False)[1] + 1).astype(np.int32)


def distinct(theirs: NDArray[np.int32], own: NDArray[np.int32], where: NDArray[np.bool_]) -> Pairs:
    """The pairs of two lines, `(2, n)`; those that follow each other and are the same come once."""
    pairs = np.stack([theirs[where], own[where]])
    if pairs.shape[1] < 2:
        return pairs
    fresh = np.append(True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0))
    return pairs[:, fresh]
