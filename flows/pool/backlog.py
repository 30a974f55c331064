"""Backlog of tiles between staging and inference: a bounded queue between two threads of the driver."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from types import TracebackType

from flows.pool.staging_budget import Batch, StagingBudget
from flows.worker.result import ReadyTile, TileResult
from tiling.storage.place import Place

OFFERED_AT_ONCE = 32


class Backlog:
    """Holds tiles that are ready, of one run or of several in turn, and bounds how far staging runs ahead of inference.

    Used as a context by whoever fills it, it closes at the end, with the error that ended filling, if any did.

    Args:
        limit: tiles that may be staged or being staged, and not yet inferred.
        budget_bytes: what staged tiles may take; None for any.
        keeps: whether they stay when they are inferred.
    """

    def __init__(self, limit: int, budget_bytes: int | None = None, *, keeps: bool = False) -> None:
        self._limit, self._budget = limit, StagingBudget(budget_bytes, keeps=keeps)
        self._ready: deque[ReadyTile] = deque()
        self._ahead = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def __enter__(self) -> Backlog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def at_once(self, most: int, tile_bytes: int) -> int:
        """Number of tiles that may be staged together."""
        return self._budget.at_once(most, tile_bytes)

    def has_room(self, count: int, batch: Batch | None = None) -> bool:
        """True if `reserve` would not have to wait."""
        with self._changed:
            return self._closed or self._has_room(count, batch)

    def reserve(self, count: int, batch: Batch | None = None) -> bool:
        """Wait until `count` more tiles may be ready; False when nobody will infer them any more.

        For the space that a batch is to take it is waited as long as space is given back by what is ahead of it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(count, batch))
            self._ahead += count
            return not self._closed

    def take_space(self, batch: Batch) -> bool:
        """True if a batch that has its places has its space too; without it, its tiles are inferred unstaged."""
        with self._changed:
            if not self._budget.has_room(batch):
                return False
            self._budget.take(batch)
            return True

    def offer(self, *ready: ReadyTile) -> None:
        """Queue tiles that are staged, or whose staging failed with a reason."""
        with self._changed:
            self._ready.extend(ready)
            self._changed.notify_all()

    def offer_unstaged(self, run: Place, indices: Iterable[int]) -> None:
        """Queue tiles of a run that are read from its image, as there is room; ends when nobody will infer them."""
        waiting = iter(indices)
        while some := [*islice(waiting, max(1, min(OFFERED_AT_ONCE, self._limit // 4)))]:
            if not self.reserve(len(some)):
                return
            self.offer(*(ReadyTile(run, TileResult(index, None, 0)) for index in some))

    def take(self, timeout: float) -> ReadyTile | None:
        """The next ready tile; None when there is none within `timeout` seconds.

        Raises:
            BaseException: what ended staging, if anything did.
        """
        with self._changed:
            if not self._ready:
                self._changed.wait_for(lambda: self._ready or self._closed, timeout)
            if self._ready:
                return self._ready.popleft()
            if self._failure is not None:
                raise self._failure
            return None

    def take_like(self, first: ReadyTile, most: int) -> list[ReadyTile]:
        """Ready tiles that follow one that was taken and are of the same kind, such as one call may compute."""
        found = list[ReadyTile]()
        with self._changed:
            while len(found) < most and self._ready and first.goes_with(self._ready[0]):
                found.append(self._ready.popleft())
        return found

    def release(self, count: int = 1) -> None:
        """Free the places of tiles that will never be inferred."""
        with self._changed:
            self._ahead -= count
            self._changed.notify_all()

    def cancel(self, batch: Batch) -> None:
        """Free the places of a batch that was being staged."""
        with self._changed:
            self._budget.cancel(batch)
        self.release(len(batch.tiles))

    def tile_finished(self, ready: ReadyTile, result: TileResult) -> None:
        """Report a tile's result and free its place."""
        self.tiles_finished([(ready, result)])

    def tiles_finished(self, ended: Sequence[tuple[ReadyTile, TileResult]]) -> None:
        """Report results of tiles and free their places, with one wake-up of whoever stages."""
        with self._changed:
            for ready, result in ended:
                self._budget.tile_finished(ready, result)
            self.release(len(ended))

    def recount(self, run: Place, sizes: Mapping[int, int]) -> None:
        """Report the sizes of a run's staged tiles, by tile."""
        with self._changed:
            self._budget.recount(run, sizes)
            self._changed.notify_all()

    def close(self, failure: BaseException | None = None) -> None:
        """Close the queue: no more tiles come; `failure` says why, if it is one."""
        with self._changed:
            self._closed = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    @property
    def ready(self) -> int:
        """Number of tiles that wait to be taken."""
        with self._changed:
            return len(self._ready)

    @property
    def is_closed(self) -> bool:
        """True if no more tiles come, or nobody takes any."""
        with self._changed:
            return self._closed

    @property
    def exhausted(self) -> bool:
        """Nothing ready and nothing to come."""
        with self._changed:
            return self._closed and not self._ready and self._failure is None

    def _has_room(self, count: int, batch: Batch | None) -> bool:
        if self._ahead and self._ahead + count > self._limit:
            return False
        return batch is None or self._budget.has_room(batch) or not self._budget.will_have_room(batch)
