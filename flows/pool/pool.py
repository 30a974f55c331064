"""Workers on a Ray cluster and the loop that keeps them busy."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import ray
from ray.exceptions import RayError, RayTaskError

from flows.config.run import Device
from flows.errors import NotStartedError, PoolError
from flows.lifecycle.stopping import StopRequest
from flows.pool.actors import StagingActor, TileActor, cause_of, short_reason
from flows.pool.backlog import Backlog
from flows.pool.block_tasks import in_tasks
from flows.pool.calls import Calls, outcomes_of, results_of
from flows.pool.cluster import Cluster
from flows.pool.cores import usable_threads
from flows.pool.roster import Roster
from flows.pool.scheduler import Attempt, Limits, Scheduler, TileOutcome, Utilisation
from flows.pool.staging_actors import Stagers
from flows.pool.tasks import Tasks
from flows.worker.result import RecheckResult
from tiling.objects.blocks import Block, in_order
from tiling.storage.place import Place
from tiling.storage.task_map import FEWEST_PIXELS

if TYPE_CHECKING:
    from flows.worker.tuning import Tuning, TuningRequest
    from tiling.storage.task_map import TaskMap
    from unet_core.bundles.bundle import Bundle

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

TUNING_ATTEMPTS = 3
AHEAD_PER_WORKER = 8
UNSTAGED_PER_WORKER = 32  # which take no space
WORKERS_PER_STAGER = 4
STAGERS_PER_GPU = 2  # a processor stages some 80 MPix/s of JPEG (docs/scale.md)


class Pool:
    """Workers of one Ray cluster: attached to, or embedded in this process and gone with it.

    Args:
        workers: actors wanted; None takes one per GPU, or one per core where there is none, and follows a cluster
            that grows.
        address: a running cluster's address; None starts an embedded one that listens on localhost only.
        actor: the Ray actor class that labels tiles.
        limits: how often and how long a tile is tried.
        stager: the Ray actor class that stages tiles.
        device: `cuda` for actors that wait for GPUs, `cpu` for such that need none; `auto` takes GPUs where the
            cluster has one at the start.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        actor: Any = TileActor,
        limits: Limits | None = None,
        stager: Any = StagingActor,
        device: Device = "auto",
    ) -> None:
        self._limits = limits or Limits()
        self._cluster = Cluster(workers, address, device, self._begin_actors)
        self._takes_several = hasattr(actor, "process_several")
        self._roster = Roster(self._cluster, actor, workers, self._limits.in_flight)
        self._stagers = Stagers(stager, self._stagers_wanted, self._cluster.resources)
        self._stop = StopRequest()
        self.tasks = Tasks(self._cluster.resources, self._cluster.expect_head)
        self.busy = Utilisation()

    def begin(self) -> Pool:
        """Start in the background, while the caller still has other things to load; `with` waits for it."""
        self._cluster.begin()
        return self

    def __enter__(self) -> Pool:
        self._cluster.wait_until_started()
        return self

    def __exit__(self, *_: object) -> None:
        self._roster.clear()
        if not self._cluster.is_lost:
            self._stagers.clear()
        self._cluster.shut_down()

    @property
    def size(self) -> int:
        """Number of tile actors, once all have started."""
        return self._roster.size

    @property
    def stagers(self) -> int:
        """Number of staging actors."""
        return len(self._stagers)

    def tune(self, request: TuningRequest, bundle: Bundle | None = None) -> Tuning:
        """Find out on a worker's device what a run leaves open; `bundle` is its model, where that is loaded here."""
        if self._cluster.is_embedded and self._cluster.device == "cpu":
            # The workers' device is this machine: what is known of it needn't wait for them to load.
            from flows.worker.tuning import recall

            known = recall(request, self._cluster.device, bundle)
            if known is not None:
                return known
        for number in range(1, TUNING_ATTEMPTS + 1):
            try:
                return self._wait(self._roster.any_actor(self._expect_not_stopped).tune.remote(request))
            except RayTaskError as error:
                raise cause_of(error) from error
            except RayError as error:
                if number == TUNING_ATTEMPTS:
                    raise PoolError(f"workers died while they measured ({short_reason(error)}); give --core") from error
        raise AssertionError

    def _wait(self, reference: Any) -> Any:
        """Result of a call to an actor, unless the work is over before it does."""
        while not ray.wait([reference], timeout=1.0)[0]:
            self._cluster.expect_own()
            self._expect_not_stopped()
        return ray.get(reference)

    def _expect_not_stopped(self) -> None:
        if self._stop.is_requested:
            raise NotStartedError("nothing more is started")

    def check(self, run_path: Place, places: Sequence[tuple[int, int]]) -> Iterator[RecheckResult]:
        """Compute places of a run's image again, each given as a plan's core and a tile of it; in no set order.

        Raises:
            PoolError: an actor died.
        """
        self._roster.grow()
        idle = self._roster.actors
        pending: dict[Any, Any] = {}
        todo = deque(places)
        try:
            while todo or pending:
                while todo and idle:
                    actor = idle.pop()
                    pending[actor.check.remote(str(run_path), *todo.popleft())] = actor
                done, _ = ray.wait(list(pending), num_returns=1, timeout=1.0)
                self._cluster.expect_own()
                for reference in done:
                    idle.append(pending.pop(reference))
                    yield cast("RecheckResult", ray.get(reference))
        except RayTaskError as error:
            raise cause_of(error) from error
        except RayError as error:
            raise PoolError(f"a worker died while checking ({short_reason(error)}); verify again") from error

    def on_blocks(self, work: Callable[[Block], Result], items: Iterable[Block]) -> Iterator[tuple[Block, Result]]:
        """Results of work on blocks, in their order; of many pixels as tasks on the cluster's processors.

        Raises:
            PoolError: workers died again and again, or the cluster is gone. Else what the work raises.
        """
        blocks = [*items]
        if sum(block.box.area for block in blocks) < FEWEST_PIXELS:
            return in_order(work, blocks, usable_threads())
        return in_tasks(work, blocks, at_once=self.tasks.processors, on_wait=self._cluster.expect_own)

    @property
    def beside(self) -> TaskMap | None:
        """A map of work in few steps on a staging actor that is idle, whose libraries are loaded; None without one."""
        return partial(self._stagers.work, on_wait=self._cluster.expect_own) if self._stagers.is_idle else None

    def elsewhere(self, pixels: int) -> TaskMap | None:
        """A map of reading so many pixels of an image: on staging actors while one is idle, or as tasks.

        None where it is done sooner without.
        """
        return None if pixels < FEWEST_PIXELS else self.beside or self.tasks.of_mask(pixels)

    def begin_beside(self, work: Callable[[Item], Result], item: Item) -> Callable[[], Result | None] | None:
        """Begin such work for later: gives what waits for its result, None where it failed; None without an actor."""
        return self._stagers.begin(work, item, self._cluster.expect_own)

    def stage(self, run_path: Place, indices: Iterable[int], backlog: Backlog, tile_bytes: int = 0) -> None:
        """Stage tiles in order, never further ahead than the backlog allows; ends when all are queued.

        Raises:
            PoolError: the cluster is lost. Else what ended a worker's staging, such as a full disk.
        """
        try:
            self._stagers.stage(run_path, indices, backlog, tile_bytes)
        except RayError as error:
            raise PoolError(f"staging workers were lost ({short_reason(error)}); the same command resumes") from error

    def infer(self, backlog: Backlog, stop: StopRequest | None = None) -> Iterator[TileOutcome]:
        """Label the backlog's tiles, of one run or of several; yields the outcome of each, in order of completion.

        At most two tiles per actor are in flight. A tile whose actor dies, or that doesn't end in time, is tried
        again by another actor, three times in all; then it fails with that reason. Once `stop` is asked for, no
        further tile is begun, and those in flight may end within the grace. What a worker raises comes with the
        tile that it came from: the caller knows whether it ends only that tile's run.

        Raises:
            PoolError: no actor can be started, or the cluster's head is gone.
        """
        self._roster.grow()
        self._roster.await_first()
        scheduler = Scheduler(self._limits)
        for number in self._roster.started:
            scheduler.join(number, time.monotonic())
        pending: Calls = {}
        stop = self._stop = stop or StopRequest()
        try:
            while (pending and not stop.is_over) if stop.is_requested else (scheduler.is_open or not backlog.exhausted):
                for number in self._roster.arrivals():
                    scheduler.join(number, time.monotonic())
                ended = [
                    *([] if stop.is_requested else self._fill(pending, scheduler, backlog)),
                    *self._collect(pending, scheduler, backlog),
                    *self._give_up_on_overdue(pending, scheduler),
                ]
                backlog.tiles_finished([(each.ready, each.result) for each in ended])
                yield from ended
        finally:
            backlog.close()
            self.busy = scheduler.utilisation(time.monotonic())
            # Interrupted, or outrun by another: nobody waits for what these are still doing.
            for number in {call[0].worker for call in pending.values()}:
                self._roster.discard(number)

    def _fill(self, pending: Calls, scheduler: Scheduler, backlog: Backlog) -> Iterator[TileOutcome]:
        """Give every actor its tiles; tiles whose staging failed come out as they are."""
        while True:
            now = time.monotonic()
            again = scheduler.next_retry(now, nothing_fresh=backlog.exhausted) or scheduler.start_returned(now)
            if again is not None:
                self._call([again], pending)
                continue
            if not scheduler.has_capacity:
                return
            ready = backlog.take(timeout=0.0 if pending or self._roster.starting else 0.2)
            if ready is None:
                return
            if ready.result.reason is not None:
                yield TileOutcome(ready, ready.result, 1)
                continue
            more = scheduler.tiles_of_call(1 + backlog.ready) - 1 if self._takes_several else 0
            others = backlog.take_like(ready, more) if more else []
            self._call(scheduler.start_call([ready, *others], time.monotonic()), pending)

    def _call(self, call: list[Attempt], pending: Calls) -> None:
        """Have an actor compute a tile, or several in one call."""
        actor, ready = self._roster.actor(call[0].worker), call[0].ready
        if len(call) == 1:
            reference = actor.process.remote(str(ready.run), ready.tile, ready.staged)
        else:
            reference = actor.process_several.remote(str(ready.run), [each.index for each in call], ready.staged)
        pending[reference] = call

    def _collect(self, pending: Calls, scheduler: Scheduler, backlog: Backlog) -> Iterator[TileOutcome]:
        """Wait for the next finished call, and take all that have finished by then: looking costs per call in flight.

        A pool that has capacity looks back at the backlog soon.
        """
        awaited = [*pending, *self._roster.starting]
        if not awaited:
            return
        soon = scheduler.has_capacity and not backlog.exhausted
        done, others = ray.wait(awaited, num_returns=1, timeout=0.02 if soon else 1.0)
        if done and others:
            done += ray.wait(others, num_returns=len(others), timeout=0)[0]
        lost: dict[int, str] = {}
        for reference in done:
            call = pending.get(reference)
            if call is None:
                continue  # an actor's first answer, or tiles that were lost with their actor
            try:
                results = results_of(call, reference)
            except RayError as error:  # of a dead process, a lost node, or one killed for want of memory
                for attempt in call:
                    logger.warning("tile %d: its worker died on attempt %d", attempt.index, attempt.tile.attempts)
                lost[call[0].worker] = short_reason(error)
                continue
            del pending[reference]
            yield from outcomes_of(call, results, scheduler)
        for number, why in lost.items():  # after what they have finished
            yield from self._worker_lost(number, why, pending, scheduler)

    def _give_up_on_overdue(self, pending: Calls, scheduler: Scheduler) -> Iterator[TileOutcome]:
        for number in scheduler.overdue(time.monotonic()):
            logger.warning("worker %d is ended: its tile takes more than %g s", number, self._limits.tile_seconds)
            yield from self._worker_lost(number, f"no end within {self._limits.tile_seconds:g} s", pending, scheduler)

    def _worker_lost(self, number: int, why: str, pending: Calls, scheduler: Scheduler) -> list[TileOutcome]:
        """Put another actor in a lost one's place; its tiles go elsewhere or fail."""
        for reference in [reference for reference, call in pending.items() if call[0].worker == number]:
            del pending[reference]
        self._roster.discard(number)
        self._roster.add()
        return scheduler.worker_lost(number, why, time.monotonic())

    def _begin_actors(self) -> None:
        """They load while the caller still does."""
        self._roster.await_first()
        self._roster.grow()
        self._stagers.grow()

    def _stagers_wanted(self) -> int:
        """A GPU computes faster than a processor decodes."""
        return STAGERS_PER_GPU * self.size if self._cluster.device == "cuda" else -(-self.size // WORKERS_PER_STAGER)
