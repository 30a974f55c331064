"""Reduced levels of a mask, joined while its tiles are still being computed from chunks that their workers encoded.

A worker has a tile's labels in memory and halves them there; only the shard's other tiles are missing then. Whoever
records tiles joins the chunks of a shard once all of its tiles are done. What is not joined, since a tile failed or was
done by an earlier driver, or because memory was short, is built from the level below afterwards, with the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiling.errors import TilingError
from tiling.geometry import Box
from tiling.plan import Tile, TilePlan
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask import BACKGROUND, Mask
from tiling.runs.pyramid import Chunks
from tiling.runs.run import Run

logger = logging.getLogger(__name__)

MOST_HELD_BYTES = 2**26
"""Chunks of shards that lack tiles; a slide of 100,000 px at core 1024 holds some 10 MB, in rows of tiles."""
MOST_WAITING = 64
WRITERS = 4

ShardPlace = tuple[int, int, int]
"""Level, row and column of a shard."""


@dataclass(slots=True)
class _Shard:
    """Chunks of a shard, and how many of its tiles have not sent theirs."""

    missing: int
    chunks: dict[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes])
    bytes: int = 0


class ReducedLevels:
    """Shards of the mask's reduced levels that are whole before the pyramid is built.

    Args:
        plan: the run's.
        mask: the run's.
        skipped: a flag per tile: it holds background alone and is there already.
        most_held_bytes: of chunks; beyond it, those that have waited longest are given up.
    """

    def __init__(
        self, plan: TilePlan, mask: Mask, skipped: NDArray[np.bool_], *, most_held_bytes: int = MOST_HELD_BYTES
    ) -> None:
        self._plan, self._pyramid = plan, mask.pyramid
        self._skipped = skipped.reshape(plan.shape)
        self._most_held_bytes, self._held_bytes = most_held_bytes, 0
        self._shards: dict[ShardPlace, _Shard] = {}
        self._given_up: set[ShardPlace] = set()
        self._background: dict[tuple[int, int], tuple[Chunks, ...]] = {}
        self._writing: dict[Future[None], ShardPlace] = {}
        self._threads: ThreadPoolExecutor | None = None
        rows, cols = plan.shape
        self._written = [
            np.zeros((-(-rows >> level), -(-cols >> level)), np.bool_)
            for level in range(self._pyramid.whole_levels + 1)
        ]

    @classmethod
    def of(cls, run: Run, state: LedgerState) -> ReducedLevels | None:
        """Of a run whose pyramid was never built; None for others, whose shards each show tiles of earlier drivers."""
        if state.pyramid_stands:
            return None
        skipped = state.states == TileState.SKIPPED
        if len(state.empty):
            skipped &= state.empty[:, 0] == 0  # else some of their pixels are of no class
        return cls(run.plan, run.open_mask(), skipped)

    def add(self, tile: Tile, reduced: Sequence[Chunks]) -> None:
        """Take in what a tile's worker has made of its labels; the ledger has the tile as done."""
        for level, chunks in enumerate(reduced[: len(self._written) - 1], start=1):
            place = level, tile.row >> level, tile.col >> level
            if place in self._given_up:
                continue
            shard = self._shards.get(place) or self._begun(place)
            self._put(place, shard, tile, chunks)
            shard.missing -= 1
            if not shard.missing:
                self._write(place, self._shards.pop(place))
        while self._held_bytes > self._most_held_bytes:
            oldest = next(iter(self._shards))
            self._held_bytes -= self._shards.pop(oldest).bytes
            self._given_up.add(oldest)

    def close(self) -> None:
        """Wait for what is being written, and hold nothing more."""
        for each in [*self._writing]:
            self._end(each)
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._shards.clear()

    def is_written(self, level: int, box: Box) -> bool:
        """True if a shard of a level is there already."""
        if level >= len(self._written):
            return False
        tall, wide = self._plan.shard_shape
        return bool(self._written[level][box.y0 // tall, box.x0 // wide])

    def _begun(self, place: ShardPlace) -> _Shard:
        rows, cols = self._tiles(place)
        skipped = self._skipped[rows, cols]
        shard = self._shards[place] = _Shard(int(np.count_nonzero(~skipped)))
        for row, col in np.argwhere(skipped).tolist():
            tile = self._plan.at(rows.start + row, cols.start + col)
            self._put(place, shard, tile, self._of_background(tile)[place[0] - 1])
        return shard

    def _put(self, place: ShardPlace, shard: _Shard, tile: Tile, chunks: Chunks) -> None:
        """Place a tile's chunks in the shard."""
        rows, cols = self._tiles(place)
        tall, wide = (
            side // chunk >> place[0]
            for side, chunk in zip(self._plan.shard_shape, self._plan.chunk_shape, strict=True)
        )
        top, left = (tile.row - rows.start) * tall, (tile.col - cols.start) * wide
        for (row, col), encoded in chunks.items():
            shard.chunks[top + row, left + col] = encoded
            shard.bytes += len(encoded)
            self._held_bytes += len(encoded)

    def _tiles(self, place: ShardPlace) -> tuple[slice, slice]:
        """Rows and columns of the tiles that a shard shows."""
        level, row, col = place
        rows, cols = self._plan.shape
        return (
            slice(row << level, min(row + 1 << level, rows)),
            slice(col << level, min(col + 1 << level, cols)),
        )

    def _of_background(self, tile: Tile) -> tuple[Chunks, ...]:
        shape = tile.valid.shape
        if shape not in self._background:
            labels = np.full(shape, BACKGROUND, np.uint8)
            self._background[shape] = self._pyramid.reduced_chunks(labels, len(self._written) - 1)
        return self._background[shape]

    def _write(self, place: ShardPlace, shard: _Shard) -> None:
        """Write a whole shard beside what the caller does next; where the disk can't keep up, it is left for later."""
        self._held_bytes -= shard.bytes
        for each in [each for each in self._writing if each.done()]:
            self._end(each)
        if len(self._writing) >= MOST_WAITING:
            return
        self._threads = self._threads or ThreadPoolExecutor(WRITERS, "overtile-reduced")
        self._writing[self._threads.submit(self._written_whole, place, shard.chunks)] = place

    def _written_whole(self, place: ShardPlace, chunks: Chunks) -> None:
        level, row, col = place
        (tall, wide), shape = self._plan.shard_shape, self._pyramid.levels[level].shape
        box = Box(row * tall, col * wide, (row + 1) * tall, (col + 1) * wide)
        self._pyramid.write_joined(level, box.intersect(Box(0, 0, shape[-2], shape[-1])), chunks)

    def _end(self, writing: Future[None]) -> None:
        level, row, col = self._writing.pop(writing)
        try:
            writing.result()
        except (TilingError, OSError) as error:
            logger.debug("shard %d/%d/%d is built later: %s", level, row, col, error)
            return
        self._written[level][row, col] = True
