"""Ray actors and the bounded in-flight loop: the only place that knows Ray."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from flows.backlog import Backlog
from flows.errors import PoolError
from flows.result import TileResult
from unet_core.allocator import ENVIRONMENT as MEMORY_ENVIRONMENT

if TYPE_CHECKING:
    from flows.tuning import Tuning, TuningRequest

logger = logging.getLogger(__name__)

IN_FLIGHT_PER_ACTOR = 2
ATTEMPTS = 3
STAGED_AT_ONCE = 2
WORKERS_PER_STAGER = 4
AHEAD_PER_WORKER = 8
OBJECT_STORE_BYTES = 128 * 2**20  # indices go out and small results come back: no pixel passes through it


@ray.remote
class TileActor:
    """One device's worker. Its threads overlap one tile's computing with its neighbours' reading and writing."""

    def __init__(self, device: str) -> None:
        # Here and not above: the driver starts Ray before it has loaded torch, and the two load side by side.
        from flows.worker import TileWorker
        from unet_core.warmup import warm_up

        self._device = device
        self._worker = TileWorker(device)
        warm_up()

    def process(self, run_path: str, index: int, staged: bool) -> TileResult:
        return self._worker.process(Path(run_path), index, staged=staged)

    def tune(self, request: TuningRequest) -> Tuning:
        from flows.tuning import tune

        return tune(request, self._device)


@ray.remote
class StagingActor:
    """Stages tiles where processors are free."""

    def __init__(self) -> None:
        from flows.worker import StagingWorker

        self._worker = StagingWorker()

    def stage(self, run_path: str, indices: list[int]) -> list[TileResult]:
        return self._worker.stage(Path(run_path), indices)


@dataclass(slots=True)
class _Slot:
    """One actor and how much it is working on."""

    actor: Any
    busy: int = 0


@dataclass(frozen=True, slots=True)
class _Attempt:
    staged: TileResult
    slot: _Slot
    number: int

    @property
    def index(self) -> int:
        return self.staged.tile


class Pool:
    """Workers of one Ray cluster: attached to, or embedded in this process and gone with it.

    Args:
        workers: actors wanted; None takes one per GPU, or one per core where there is none.
        address: a running cluster's address; None starts an embedded one that listens on localhost only.
        actor: the Ray actor class that labels tiles.
    """

    def __init__(self, workers: int | None = None, address: str | None = None, actor: Any = TileActor) -> None:
        self._workers = workers
        self._actor = actor
        self._address = address
        self._embedded = False
        self._slots: list[_Slot] = []
        self._stagers: list[_Slot] = []
        self._starting: threading.Thread | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        self._failure: PoolError | None = None

    def begin(self) -> Pool:
        """Start in the background, while the caller still has other things to load; `with` waits for it."""
        self._starting = threading.Thread(target=self._start_and_stay, name="pool", daemon=True)
        self._starting.start()
        return self

    def __enter__(self) -> Pool:
        if self._starting is None:
            self._start_safely()
        else:
            self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        for slot in (*self._slots, *self._stagers):
            ray.kill(slot.actor)
        self._slots, self._stagers = [], []
        if self._embedded:
            ray.shutdown()
            self._embedded = False
        self._ended.set()

    @property
    def size(self) -> int:
        """How many tile actors there are."""
        return len(self._slots)

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
        try:
            return ray.get(self._slots[0].actor.tune.remote(request))
        except RayTaskError as error:
            raise _cause(error) from error

    def stage(self, run_path: Path, indices: Sequence[int], backlog: Backlog) -> None:
        """Stage tiles in order, never further ahead than the backlog allows; ends when all are handed over."""
        pending: dict[Any, _Slot] = {}
        todo = iter(indices)
        try:
            while (batch := list(islice(todo, STAGED_AT_ONCE))) and backlog.reserve(len(batch)):
                if len(pending) >= 2 * len(self._stagers):
                    _hand_over(pending, backlog, wait_for=1)
                slot = min(self._stagers, key=_load)
                slot.busy += 1
                pending[slot.actor.stage.remote(str(run_path), batch)] = slot
                _hand_over(pending, backlog, wait_for=0)
            _hand_over(pending, backlog, wait_for=len(pending))
            backlog.close()
        except RayTaskError as error:
            backlog.close(_cause(error))
        except RayError as error:
            backlog.close(PoolError(f"a staging worker was lost ({_first_line(error)}); the same command goes on"))

    def infer(self, run_path: Path, backlog: Backlog, *, staged: bool) -> Iterator[tuple[TileResult, int]]:
        """Label the backlog's tiles; yields each result with its number of attempts, in order of completion.

        At most two tiles per actor are in flight. A tile whose actor dies is tried again by another actor, three
        times in all; then it fails with that reason.
        """
        retries: deque[_Attempt] = deque()
        pending: dict[Any, _Attempt] = {}
        try:
            while not (backlog.exhausted and not pending and not retries):
                yield from self._fill(run_path, staged, pending, retries, backlog)
                if pending:
                    yield from self._collect(pending, retries, backlog)
        finally:
            backlog.close()

    def _fill(
        self,
        run_path: Path,
        staged: bool,
        pending: dict[Any, _Attempt],
        retries: deque[_Attempt],
        backlog: Backlog,
    ) -> Iterator[tuple[TileResult, int]]:
        """Give every actor its tiles; tiles whose staging failed come out as they are."""
        while self._hungry:
            slot = min(self._slots, key=_load)
            if retries:
                again = retries.popleft()
                attempt = _Attempt(again.staged, slot, again.number + 1)
            else:
                ready = backlog.take(timeout=0.0 if pending else 0.2)
                if ready is None:
                    return
                if ready.reason is not None:
                    backlog.release()
                    yield ready, 1
                    continue
                attempt = _Attempt(ready, slot, 1)
            slot.busy += 1
            pending[slot.actor.process.remote(str(run_path), attempt.index, staged)] = attempt

    def _collect(
        self, pending: dict[Any, _Attempt], retries: deque[_Attempt], backlog: Backlog
    ) -> Iterator[tuple[TileResult, int]]:
        """Wait for the next finished tile; a hungry pool looks back at the backlog soon."""
        done, _ = ray.wait(list(pending), num_returns=1, timeout=0.02 if self._hungry else 1.0)
        for reference in done:
            attempt = pending.pop(reference)
            attempt.slot.busy -= 1
            try:
                result = ray.get(reference)
            except RayTaskError as error:
                raise _cause(error) from error
            except RayActorError as error:
                self._replace(attempt.slot)
                logger.warning("tile %d: its worker died on attempt %d", attempt.index, attempt.number)
                if attempt.number < ATTEMPTS:
                    retries.append(attempt)
                    continue
                reason = f"its worker died {ATTEMPTS} times: {_first_line(error)}"
                result = TileResult(attempt.index, None, 0, {}, reason)
            backlog.release()
            yield replace(result, seconds={**attempt.staged.seconds, **result.seconds}), attempt.number

    @property
    def _hungry(self) -> bool:
        return any(slot.busy < IN_FLIGHT_PER_ACTOR for slot in self._slots)

    def _start_and_stay(self) -> None:
        """Start, then keep this thread: Linux kills Ray's processes when the thread that made them ends."""
        self._start_safely()
        self._started.set()
        self._ended.wait()

    def _start_safely(self) -> None:
        try:
            self._start()
        except (ConnectionError, RayError, RuntimeError, ValueError) as error:
            self._failure = PoolError(
                f"no Ray cluster answers at {self._address or 'localhost'} ({_first_line(error)}); check the address "
                f"and the token, or leave --ray-address out for an embedded one"
            )

    def _start(self) -> None:
        if not ray.is_initialized():
            if self._address is not None:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                self._start_embedded()
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        self._device = "cuda" if gpus else "cpu"
        workers = self._workers or gpus or max(1, cpus)
        self._slots = [self._tile_actor() for _ in range(workers)]
        stagers = -(-workers // WORKERS_PER_STAGER)
        self._stagers = [_Slot(StagingActor.options(num_cpus=0).remote()) for _ in range(stagers)]

    def _start_embedded(self) -> None:
        for name, value in MEMORY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)  # workers inherit it; so they need no environment of their own
        ray.init(
            address="local",  # never a cluster that happens to run on this machine
            num_cpus=self._workers or psutil.cpu_count(logical=False) or os.cpu_count() or 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
        self._embedded = True

    def _tile_actor(self) -> _Slot:
        # Ray sets OMP_NUM_THREADS to an actor's CPUs: one thread per worker, so that none waits for another.
        gpus = 1 if self._device == "cuda" else 0
        environment = None if self._embedded else {"env_vars": MEMORY_ENVIRONMENT}
        options = self._actor.options(
            num_cpus=1, num_gpus=gpus, max_concurrency=IN_FLIGHT_PER_ACTOR + 1, runtime_env=environment
        )
        return _Slot(options.remote(self._device))

    def _replace(self, dead: _Slot) -> None:
        if dead in self._slots:
            self._slots[self._slots.index(dead)] = self._tile_actor()


def _hand_over(pending: dict[Any, _Slot], backlog: Backlog, *, wait_for: int) -> None:
    """Move finished staging calls' tiles into the backlog, waiting for that many calls."""
    if not pending:
        return
    done, _ = ray.wait(list(pending), num_returns=max(1, wait_for), timeout=None if wait_for else 0)
    for reference in done:
        pending.pop(reference).busy -= 1
        for staged in ray.get(reference):
            backlog.offer(staged)


def _load(slot: _Slot) -> int:
    return slot.busy


def _cause(error: RayTaskError) -> Exception:
    """The error itself, as the remote worker raised it."""
    return error.cause if isinstance(error.cause, Exception) else error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
