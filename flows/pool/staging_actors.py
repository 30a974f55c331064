"""The Ray actors that stage tiles ahead of inference, with retries of a batch whose stager dies."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from flows.pool.actors import cause_of, short_reason
from flows.pool.backlog import Backlog
from flows.pool.staging_budget import Batch
from flows.worker.result import ReadyTile, TileResult
from tiling.storage.place import Place

logger = logging.getLogger(__name__)

STAGED_AT_ONCE = 2
STAGING_ATTEMPTS = 3
STAGING_RESOURCE = "staging"  # of nodes that are there to stage: ray start --resources '{"staging": 1}'

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Stager:
    actor: Any
    busy: int = 0


@dataclass(frozen=True, slots=True)
class _Task:
    """A batch that a stager is staging."""

    stager: _Stager
    batch: Batch
    attempt: int


class Stagers:
    """As many staging actors as the tile actors need.

    Args:
        actor: the Ray actor class that stages.
        wanted: tells how many there should be; more on a cluster that grows.
        resources: tells what the cluster has, and raises where it is gone.
    """

    def __init__(self, actor: Any, wanted: Callable[[], int], resources: Callable[[], Mapping[str, float]]) -> None:
        self._actor, self._wanted, self._resources = actor, wanted, resources
        self._stagers: list[_Stager] = []
        self._are_ended = False

    def __len__(self) -> int:
        return len(self._stagers)

    @property
    def actors(self) -> list[Any]:
        """Handles of those that are there."""
        return [stager.actor for stager in self._stagers]

    def grow(self) -> None:
        """Have enough for the tile actors that there are; none once they are ended."""
        while not self._are_ended and len(self._stagers) < self._wanted():
            self._stagers.append(self._begun())

    def clear(self) -> None:
        """End all of them, for good: what they were staging is staged no more, and nobody is warned of their death."""
        self._are_ended = True
        for actor in self.actors:
            ray.kill(actor)
        self._stagers = []

    def stage(self, run_path: Place, indices: Iterable[int], backlog: Backlog, tile_bytes: int = 0) -> None:
        """Stage tiles in order, never further ahead than the backlog allows; ends when all are queued.

        Tiles whose stagers die, three times, are queued unstaged: their actors read them from the image, and
        one that kills those too is named, while the run continues. So are tiles for which there is no space, because
        others lie there that nobody infers.

        Raises:
            What ended a worker's staging, such as a full disk.
        """
        pending: dict[Any, _Task] = {}
        todo, at_once = iter(indices), backlog.at_once(STAGED_AT_ONCE, tile_bytes)
        try:
            while not self._are_ended and (tiles := list(islice(todo, at_once))):
                batch = Batch(run_path, tiles, tile_bytes)
                if not backlog.has_room(len(tiles), batch):
                    # What is staged already must be queued, or nobody would ever make room.
                    self._enqueue(pending, backlog, down_to=0)
                if not backlog.reserve(len(tiles), batch):
                    break
                if not backlog.take_space(batch):
                    for tile in tiles:
                        backlog.offer(ReadyTile(run_path, TileResult(tile, None, 0)))
                    continue
                self.grow()
                if len(pending) >= 2 * len(self._stagers):
                    self._enqueue(pending, backlog, down_to=len(pending) - 1)
                self._begin(pending, batch, 1)
                self._enqueue(pending, backlog, down_to=len(pending))
            self._enqueue(pending, backlog, down_to=0)
        except RayTaskError as error:
            raise cause_of(error) from error
        finally:
            # After a failure nobody waits for what these are still staging; other runs need the places.
            for task in pending.values():
                task.stager.busy -= 1
                backlog.cancel(task.batch)

    @property
    def is_idle(self) -> bool:
        """True if one has nothing to do, and can do other work."""
        return hasattr(self._actor, "work") and any(not stager.busy for stager in self._stagers)

    def work(
        self, work: Callable[[Item], Result], items: Iterable[Item], on_wait: Callable[[], None]
    ) -> Iterator[Result]:
        """Results of other work on items as they end, one of each stager at a time; here where a stager dies.

        Args:
            work: pickles, and may be done twice.
            items: to work on.
            on_wait: is called every second of waiting; what it raises ends the wait.
        """
        coming, running = deque(items), dict[Any, tuple[_Stager, Item]]()
        try:
            while coming or running:
                while coming and len(running) < len(stagers := self._stagers):
                    stager, item = min(stagers, key=lambda each: each.busy), coming.popleft()
                    stager.busy += 1
                    running[stager.actor.work.remote(work, item)] = stager, item
                if not running:  # the stagers were ended meanwhile
                    yield work(coming.popleft())
                    continue
                done, _ = ray.wait([*running], timeout=1.0)
                if not done:
                    on_wait()
                for reference in done:
                    stager, item = running.pop(reference)
                    stager.busy -= 1
                    yield self._worked(reference, stager, work, item)
        finally:
            for stager, _ in running.values():
                stager.busy -= 1

    def _worked(self, reference: Any, stager: _Stager, work: Callable[[Item], Result], item: Item) -> Result:
        """Result of a stager's other work; of one that died, of the same work here."""
        try:
            result: Result = ray.get(reference)
        except RayTaskError as error:
            raise cause_of(error) from error
        except RayError as error:
            logger.warning("a stager died at other work: %s", short_reason(error))
            self._replace(stager)
            return work(item)
        return result

    def begin(
        self, work: Callable[[Item], Result], item: Item, on_wait: Callable[[], None]
    ) -> Callable[[], Result | None] | None:
        """Begin other work on one that is idle, for whoever asks later; None without one.

        Args:
            work: pickles, and may be done in vain.
            item: to work on.
            on_wait: is called every second that the result is waited for.

        Returns:
            What gives the result; None where the work failed.
        """
        idle = next((each for each in [*self._stagers] if not each.busy), None) if self.is_idle else None
        return None if idle is None else partial(_result, idle.actor.work.remote(work, item), on_wait)

    def _begin(self, pending: dict[Any, _Task], batch: Batch, attempt: int) -> None:
        stager = min(self._stagers, key=lambda each: each.busy, default=None)
        if stager is None:
            return  # they were ended meanwhile, and nobody waits for the batch
        stager.busy += 1
        pending[stager.actor.stage.remote(str(batch.run), [*batch.tiles])] = _Task(stager, batch, attempt)

    def _enqueue(self, pending: dict[Any, _Task], backlog: Backlog, *, down_to: int) -> None:
        """Move finished batches' tiles into the backlog until no more than `down_to` are pending.

        Nobody waits any more once the backlog is closed.
        """
        while pending and not backlog.is_closed:
            waits = len(pending) > down_to
            done, _ = ray.wait(list(pending), num_returns=1, timeout=1.0 if waits else 0)
            for reference in done:
                task = pending[reference]
                ready = self._collect(reference, task)
                if not ready:
                    self._begin(pending, task.batch, task.attempt + 1)
                del pending[reference]
                task.stager.busy -= 1
                for tile in ready:
                    backlog.offer(tile)
            if not done and not waits:
                return

    def _collect(self, reference: Any, task: _Task) -> list[ReadyTile]:
        """A batch's tiles; none where its stager has died and another, put in its place, is to try."""
        try:
            results: list[TileResult] = ray.get(reference)
        except RayTaskError:
            raise
        except RayError as error:
            unstaged = [ReadyTile(task.batch.run, TileResult(tile, None, 0)) for tile in task.batch.tiles]
            if self._are_ended:
                return unstaged
            logger.warning("a stager died on attempt %d: %s", task.attempt, short_reason(error))
            self._replace(task.stager)
            return [] if task.attempt < STAGING_ATTEMPTS else unstaged
        return [ReadyTile(task.batch.run, result, staged=True) for result in results]

    def _replace(self, stager: _Stager) -> None:
        """Put another in the place of one that died."""
        stagers = self._stagers  # those that are ended meanwhile by another thread are another list
        for place, each in enumerate(stagers):
            if each is stager:
                stagers[place] = self._begun()

    def _begun(self) -> _Stager:
        """A stager on a node that declares the resource for it; where none does, anywhere."""
        declared = self._resources().get(STAGING_RESOURCE, 0) > 0
        share = {STAGING_RESOURCE: 0.001} if declared else None
        return _Stager(self._actor.options(num_cpus=0, resources=share, scheduling_strategy="SPREAD").remote())


def _result(reference: Any, on_wait: Callable[[], None]) -> Any:
    """Result of work that was begun; None where it failed."""
    while not ray.wait([reference], timeout=1.0)[0]:
        on_wait()
    try:
        return ray.get(reference)
    except RayError as error:
        logger.info("work that was begun early is done again: %s", short_reason(error))
        return None
