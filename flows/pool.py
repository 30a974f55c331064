"""Workers on a Ray cluster and the loop that keeps them busy: with `flows.actors` and
`flows.embedded` the only place that knows Ray."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from flows.actors import StagingActor, TileActor, cause_of, died_with_its_node, told_by
from flows.backlog import Backlog
from flows.config import Device
from flows.dispatch import Attempt, Busy, Dispatch, Ended, Limits
from flows.embedded import start_ray
from flows.errors import OverError, PoolError
from flows.head import Head
from flows.result import Checked, TileResult
from flows.stagers import Stagers
from flows.stopping import Stop, keep_sigterm
from tiling.storage import Place
from unet_core.allocator import ENVIRONMENT as MEMORY_ENVIRONMENT

if TYPE_CHECKING:
    from flows.tuning import Tuning, TuningRequest

logger = logging.getLogger(__name__)

IN_FLIGHT_PER_ACTOR = Limits().in_flight
FAILED_STARTS = 3
TUNING_ATTEMPTS = 3
AHEAD_PER_WORKER = 8
WORKERS_PER_STAGER = 4
STAGERS_PER_GPU = 2  # a processor stages some 80 MPix/s of JPEG (docs/scale.md)
GROWTH_SECONDS = 5.0
ALONE_SECONDS = 60.0


@dataclass(slots=True)
class _Slot:
    """One tile actor; `starting` is its first answer, until it came."""

    actor: Any
    starting: Any


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
        self._workers, self._address, self._asked_device = workers, address, device
        self._actor = actor
        self._limits = limits or Limits()
        self._embedded = False
        self._head: Head | None = None
        self._slots: dict[int, _Slot] = {}
        self._wanted = 0
        self._numbered = 0
        self._failed_starts = 0
        self._looked_at = 0.0
        self._last_worker_at = 0.0
        self._stagers = Stagers(stager, self._stagers_wanted, self._resources)
        self._stop = Stop()
        self._starting: threading.Thread | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        self._failure: PoolError | None = None
        self.busy = Busy()

    def begin(self) -> Pool:
        """Start in the background, while the caller still has other things to load; `with` waits for it."""
        # Ray imports it in that thread and Prefect in this one, and its modules import each other in a circle: two
        # threads at once would find it half made.
        import_module("pydantic.v1.fields")
        self._starting = threading.Thread(target=self._start_and_stay, name="pool", daemon=True)
        self._starting.start()
        return self

    def __enter__(self) -> Pool:
        with keep_sigterm():
            if self._starting is None:
                self._start_safely()
            else:
                self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        if not self._head_is_lost:
            for slot in self._slots.values():
                ray.kill(slot.actor)
            self._stagers.clear()
        self._slots = {}
        if self._embedded:
            ray.shutdown()
            self._embedded = False
        self._ended.set()

    @property
    def size(self) -> int:
        """How many tile actors there are, or will be as soon as they have started."""
        return self._wanted

    @property
    def stagers(self) -> int:
        """How many staging actors there are."""
        return len(self._stagers)

    def tune(self, request: TuningRequest) -> Tuning:
        """Find out on a worker's device what a run leaves open."""
        if self._embedded and self._device == "cpu":
            # The workers' device is this machine: what is known of it needn't wait for them to load.
            from flows.tuning import recall

            known = recall(request, self._device)
            if known is not None:
                return known
        for number in range(1, TUNING_ATTEMPTS + 1):
            try:
                return self._wait(self._any_actor().tune.remote(request))
            except RayTaskError as error:
                raise cause_of(error) from error
            except RayError as error:
                if number == TUNING_ATTEMPTS:
                    raise PoolError(f"workers died while they measured ({told_by(error)}); give --core") from error
        raise AssertionError

    def _any_actor(self) -> Any:
        """One that has started; the first that starts, where none has yet."""
        while True:
            slots = [*self._slots.values()]
            started = [slot.actor for slot in slots if slot.starting is None]
            if started:
                return started[0]
            actors = {slot.starting: slot.actor for slot in slots}
            done, _ = ray.wait([*actors], num_returns=1, timeout=1.0)
            if done:
                return actors[done[0]]
            self._expect_going_on()
            self._wonder(time.monotonic())

    def _wait(self, reference: Any) -> Any:
        """What a call to an actor returns, unless the work is over before it does."""
        while not ray.wait([reference], timeout=1.0)[0]:
            self._expect_going_on()
        return ray.get(reference)

    def _expect_going_on(self) -> None:
        if self._stop.is_asked:
            raise OverError("nothing more is begun")

    def check(self, run_path: Place, places: Sequence[tuple[int, int]]) -> Iterator[Checked]:
        """Compute places of a run's image again, each given as a plan's core and a tile of it; in no set order.

        Raises:
            PoolError: an actor died.
        """
        self._grow()
        idle = [slot.actor for slot in self._slots.values()]
        pending: dict[Any, Any] = {}
        todo = deque(places)
        try:
            while todo or pending:
                while todo and idle:
                    actor = idle.pop()
                    pending[actor.check.remote(str(run_path), *todo.popleft())] = actor
                (done,), _ = ray.wait(list(pending), num_returns=1)
                idle.append(pending.pop(done))
                yield cast("Checked", ray.get(done))
        except RayTaskError as error:
            raise cause_of(error) from error
        except RayError as error:
            raise PoolError(f"a worker died while checking ({told_by(error)}); verify again") from error

    def stage(self, run_path: Place, indices: Iterable[int], backlog: Backlog, tile_bytes: int = 0) -> None:
        """Stage tiles in order, never further ahead than the backlog allows; ends when all are handed over.

        Raises:
            PoolError: the cluster is lost. Else what ended a worker's staging, such as a full disk.
        """
        try:
            self._stagers.stage(run_path, indices, backlog, tile_bytes)
        except RayError as error:
            raise PoolError(f"staging workers were lost ({told_by(error)}); the same command goes on") from error

    def infer(self, backlog: Backlog, stop: Stop | None = None) -> Iterator[Ended]:
        """Label the backlog's tiles, of one run or of several; yields what became of each, in order of completion.

        At most two tiles per actor are in flight. A tile whose actor dies, or that doesn't end in time, is tried
        again by another actor, three times in all; then it fails with that reason. Once `stop` is asked for, no
        further tile is begun, and those in flight may end within the grace. What a worker raises comes with the
        tile that it came from: the caller knows whether it ends only that tile's run.

        Raises:
            PoolError: no actor can be started, or the cluster's head is gone.
        """
        self._grow()
        self._last_worker_at = time.monotonic()
        dispatch = Dispatch(self._limits)
        for number, slot in self._slots.items():
            if slot.starting is None:
                dispatch.join(number)
        pending: dict[Any, Attempt] = {}
        stop = self._stop = stop or Stop()
        try:
            while (pending and not stop.is_over) if stop.is_asked else (dispatch.is_open or not backlog.exhausted):
                self._welcome(dispatch)
                for ended in (
                    *([] if stop.is_asked else self._fill(pending, dispatch, backlog)),
                    *self._collect(pending, dispatch, backlog),
                    *self._give_up_on_overdue(pending, dispatch),
                ):
                    backlog.release(1, ended.ready.staged_bytes)
                    yield ended
        finally:
            backlog.close()
            self.busy = dispatch.busy(time.monotonic())
            # Interrupted, or outrun by another: nobody waits for what these are still doing.
            for number in {attempt.worker for attempt in pending.values()}:
                self._discard(number)

    def _fill(self, pending: dict[Any, Attempt], dispatch: Dispatch, backlog: Backlog) -> Iterator[Ended]:
        """Give every actor its tiles; tiles whose staging failed come out as they are."""
        while True:
            attempt = dispatch.again(time.monotonic(), nothing_fresh=backlog.exhausted)
            if attempt is None:
                if not dispatch.is_hungry:
                    return
                ready = backlog.take(timeout=0.0 if pending or self._is_starting else 0.2)
                if ready is None:
                    return
                if ready.result.reason is not None:
                    yield Ended(ready, ready.result, 1)
                    continue
                attempt = dispatch.start(ready, time.monotonic())
            actor = self._slots[attempt.worker].actor
            pending[actor.process.remote(str(attempt.ready.run), attempt.index, attempt.ready.staged)] = attempt

    def _collect(self, pending: dict[Any, Attempt], dispatch: Dispatch, backlog: Backlog) -> Iterator[Ended]:
        """Wait for the next finished tile, and take all that have finished by then: looking costs per tile in flight.

        A hungry pool looks back at the backlog soon.
        """
        awaited = [*pending, *(slot.starting for slot in self._slots.values() if slot.starting is not None)]
        if not awaited:
            return
        soon = dispatch.is_hungry and not backlog.exhausted
        done, others = ray.wait(awaited, num_returns=1, timeout=0.02 if soon else 1.0)
        if done and others:
            done += ray.wait(others, num_returns=len(others), timeout=0)[0]
        lost: dict[int, str] = {}
        for reference in done:
            attempt = pending.get(reference)
            if attempt is None:
                continue  # an actor's first answer, or a tile that was lost with its actor
            cause: Exception | None = None
            try:
                result = ray.get(reference)
            except RayTaskError as error:
                cause = cause_of(error)
                result = TileResult(attempt.index, None, 0, {}, f"{type(cause).__name__}: {cause}")
            except RayError as error:  # of a dead process, a lost node, or one killed for want of memory
                logger.warning("tile %d: its worker died on attempt %d", attempt.index, attempt.tile.attempts)
                lost[attempt.worker] = told_by(error)
                continue
            del pending[reference]
            ended = dispatch.end(attempt, result, time.monotonic())
            if ended is not None:
                yield replace(ended, error=cause)
        for number, why in lost.items():  # after what they have finished
            yield from self._lose(number, why, pending, dispatch)

    def _give_up_on_overdue(self, pending: dict[Any, Attempt], dispatch: Dispatch) -> Iterator[Ended]:
        for number in dispatch.overdue(time.monotonic()):
            logger.warning("worker %d is ended: its tile takes more than %g s", number, self._limits.tile_seconds)
            yield from self._lose(number, f"no end within {self._limits.tile_seconds:g} s", pending, dispatch)

    def _lose(self, number: int, why: str, pending: dict[Any, Attempt], dispatch: Dispatch) -> list[Ended]:
        """Put another actor in a lost one's place; its tiles go elsewhere or fail."""
        for reference in [reference for reference, attempt in pending.items() if attempt.worker == number]:
            del pending[reference]
        self._discard(number)
        self._add()
        return dispatch.lose(number, why)

    def _welcome(self, dispatch: Dispatch) -> None:
        """Take in actors that have started, and look now and then whether the cluster has grown."""
        starting = {slot.starting: number for number, slot in self._slots.items() if slot.starting is not None}
        if starting:
            done, _ = ray.wait(list(starting), num_returns=len(starting), timeout=0)
            for reference in done:
                self._take_in(starting[reference], dispatch)
        patience = GROWTH_SECONDS if self._failed_starts < FAILED_STARTS else ALONE_SECONDS
        if time.monotonic() - self._looked_at > patience:
            self._look_for_more()
        if dispatch.has_workers:
            self._last_worker_at = time.monotonic()
        else:
            self._wonder(time.monotonic())

    def _wonder(self, now: float) -> None:
        """Say now and then that nobody is there to work."""
        if now - self._last_worker_at > ALONE_SECONDS:
            logger.warning("no worker finds a place in the Ray cluster for %g s; waiting for a node", ALONE_SECONDS)
            self._last_worker_at = now

    def _take_in(self, number: int, dispatch: Dispatch) -> None:
        slot = self._slots[number]
        try:
            ray.get(slot.starting)
        except RayTaskError as error:
            raise cause_of(error) from error
        except RayError as error:
            self._failed_starts += not died_with_its_node(error)
            self._discard(number)
            if self._failed_starts < FAILED_STARTS:
                self._add()
            elif not self._slots:
                raise PoolError(
                    f"no worker can be started: {self._failed_starts} died while loading ({told_by(error)}); look "
                    f"into Ray's logs, and check that overtile is installed with its packages where the workers run"
                ) from error
        else:
            slot.starting = None
            self._failed_starts = 0
            dispatch.join(number)

    @property
    def _is_starting(self) -> bool:
        return any(slot.starting is not None for slot in self._slots.values())

    def _start_and_stay(self) -> None:
        """Start, then keep this thread: Linux kills Ray's processes when the thread that made them ends."""
        self._start_safely()
        self._started.set()
        self._ended.wait()

    def _start_safely(self) -> None:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 (a node that doesn't come up in time is just that to Ray)
            self._failure = PoolError(
                f"no Ray cluster answers at {self._address or 'localhost'} ({told_by(error)}); check the address "
                f"and the token, or leave --ray-address out for an embedded one"
            )

    def _start(self) -> None:
        if not ray.is_initialized():
            if self._address is not None:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
                self._head = Head(ray.get_runtime_context().gcs_address)
            else:
                start_ray(self._workers)
                self._embedded = True
        seen = "cuda" if self._resources().get("GPU", 0) >= 1 else "cpu"
        self._device = seen if self._asked_device == "auto" else self._asked_device
        self._last_worker_at = time.monotonic()
        self._grow()
        self._stagers.grow()

    def _grow(self) -> None:
        """As many actors as were asked for, or as the cluster has devices for by now."""
        self._looked_at = time.monotonic()
        devices = int(self._resources().get("GPU" if self._device == "cuda" else "CPU", 0))
        self._wanted = max(1, self._workers or devices)
        for _ in range(self._wanted - len(self._slots)):
            self._add()

    def _look_for_more(self) -> None:
        """Grow with the cluster; while its head is silent, what is in flight goes on without it."""
        self._looked_at = time.monotonic()
        if self._head is None or self._head.answers():
            self._grow()

    def _stagers_wanted(self) -> int:
        """A GPU computes faster than a processor decodes."""
        return STAGERS_PER_GPU * self.size if self._device == "cuda" else -(-self.size // WORKERS_PER_STAGER)

    def _resources(self) -> Mapping[str, float]:
        """What the cluster has; asked only of a head that is there."""
        if self._head is not None:
            self._head.wait()
        return ray.cluster_resources()

    @property
    def _head_is_lost(self) -> bool:
        """Whether nobody is there any more to ask for anything, which would wait for ever."""
        return self._head is not None and self._head.is_lost

    def _add(self) -> None:
        # Ray sets OMP_NUM_THREADS to an actor's CPUs: one thread per worker, so that none waits for another.
        gpus = 1 if self._device == "cuda" else 0
        environment = None if self._embedded else {"env_vars": MEMORY_ENVIRONMENT}
        if self._head is not None:
            self._head.wait()
        options = self._actor.options(
            num_cpus=1, num_gpus=gpus, max_concurrency=self._limits.in_flight + 1, runtime_env=environment
        )
        actor = options.remote(self._device)
        self._numbered += 1
        self._slots[self._numbered] = _Slot(actor, actor.is_ready.remote())

    def _discard(self, number: int) -> None:
        actor = self._slots.pop(number).actor
        if not self._head_is_lost:
            ray.kill(actor)
