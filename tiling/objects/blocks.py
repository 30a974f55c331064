"""Blocks that an image is worked through in: some whole shards each, so that no shard has two writers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol, TypeVar

from tiling.geometry import Box
from tiling.storage.generator_threads import GeneratorThreads

BLOCK_PX = 2048
"""The side that blocks come near to."""
AHEAD = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its place in the grid, and its pixels."""

    index: int
    row: int
    col: int
    box: Box


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The blocks of an image of that shape, which partition it; row by row.

    Args:
        shape: of the image.
        side: height and width of a block; those at the end are smaller.
    """

    shape: tuple[int, int]
    side: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int], shard: tuple[int, int]) -> BlockGrid:
        """Of as many whole shards as come near to `BLOCK_PX`, at least one.

        Along each side they are a power of two, so that blocks hold whole shards of coarser levels, too.
        """
        tall, wide = (px << max(0, (BLOCK_PX // px).bit_length() - 1) for px in shard)
        return cls(shape, (tall, wide))

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.shape[0] // self.side[0]), -(-self.shape[1] // self.side[1])

    def at(self, row: int, col: int) -> Block:
        tall, wide = self.side
        box = Box(row * tall, col * wide, min((row + 1) * tall, self.shape[0]), min((col + 1) * wide, self.shape[1]))
        return Block(row * self.counts[1] + col, row, col, box)

    def __iter__(self) -> Iterator[Block]:
        rows, cols = self.counts
        return (self.at(row, col) for row in range(rows) for col in range(cols))

    def touching(self, box: Box) -> list[Block]:
        """Those that have pixels of a box."""
        tall, wide = self.side
        rows, cols = range(box.y0 // tall, -(-box.y1 // tall)), range(box.x0 // wide, -(-box.x1 // wide))
        return [self.at(row, col) for row in rows for col in cols]

    def around(self, box: Box, reach: int) -> Box:
        """A box with that many pixels around it, as far as the image goes."""
        return box.expand(reach, reach, reach, reach).intersect(Box(0, 0, *self.shape))


class BlockMap(Protocol):
    """A map over blocks, as `Executor.map`: the results in order, some blocks being worked on at a time.

    The work pickles where its pixels do, so that it can be done in other processes, and may be done again.
    """

    def __call__(
        self, work: Callable[[Block], Result], items: Iterable[Block], /
    ) -> Iterator[tuple[Block, Result]]: ...


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[tuple[Item, Result]]:
    """Items with their results, in order; a few are worked on, and held, at a time.

    One alone is worked on in the caller's own thread: of a small image another's start would cost more than its work.
    """
    coming = iter(items)
    begun = [*islice(coming, 2)]
    if len(begun) < 2:
        yield from ((item, work(item)) for item in begun)
        return
    with GeneratorThreads(threads) as pool:
        waiting = deque[tuple[Item, Future[Result]]]()
        try:
            for item in chain(begun, coming):
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= threads + AHEAD:
                    first, result = waiting.popleft()
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        finally:
            for _, result in waiting:
                result.cancel()
