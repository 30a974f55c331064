"""The tile actors of a pool: started, replaced where they are lost, and more of them on a cluster that grows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from flows.errors import PoolError
from flows.pool.actors import cause_of, died_with_its_node, short_reason
from flows.pool.cluster import Cluster
from unet_core.inference.allocator import ENVIRONMENT as MEMORY_ENVIRONMENT

logger = logging.getLogger(__name__)

FAILED_STARTS = 3
GROWTH_SECONDS = 5.0
ALONE_SECONDS = 60.0


@dataclass(slots=True)
class _Slot:
    """One tile actor; `starting` is its first answer, until it came."""

    actor: Any
    starting: Any


class Roster:
    """Tile actors by number; a number is never given twice.

    Args:
        cluster: where they live.
        kind: the Ray actor class.
        workers: how many are wanted; None for as many as the cluster has devices for.
        in_flight: tiles that one may have at a time.
    """

    def __init__(self, cluster: Cluster, kind: Any, workers: int | None, in_flight: int) -> None:
        self._cluster, self._kind, self._workers, self._in_flight = cluster, kind, workers, in_flight
        self._slots: dict[int, _Slot] = {}
        self._wanted = self._numbered = self._failed_starts = 0
        self._looked_at = self._last_worker_at = 0.0

    @property
    def size(self) -> int:
        """Number of workers, once all have started."""
        return self._wanted

    @property
    def actors(self) -> list[Any]:
        """Handles of all, started or not."""
        return [slot.actor for slot in self._slots.values()]

    @property
    def started(self) -> list[int]:
        """Numbers of those that have answered."""
        return [number for number, slot in self._slots.items() if slot.starting is None]

    @property
    def starting(self) -> dict[Any, int]:
        """First answers that are awaited, and whose they are."""
        return {slot.starting: number for number, slot in self._slots.items() if slot.starting is not None}

    def actor(self, number: int) -> Any:
        return self._slots[number].actor

    def any_actor(self, on_wait: Callable[[], None]) -> Any:
        """One that has started; the first that starts, where none has yet. `on_wait` is called every second of waiting.

        Raises:
            PoolError: all died while loading. Else what `on_wait` raises.
        """
        while True:
            if started := self.started:
                return self.actor(started[0])
            starting = self.starting
            if not starting:
                raise PoolError("no worker is left: all died while loading; look into Ray's logs")
            done, _ = ray.wait([*starting], num_returns=1, timeout=1.0)
            if done:
                return self.actor(starting[done[0]])
            self._cluster.expect_own()
            on_wait()
            self._warn_if_alone()

    def grow(self) -> None:
        """Grow to the number that was asked for, or that the cluster has devices for now."""
        self._looked_at = time.monotonic()
        devices = int(self._cluster.resources().get("GPU" if self._cluster.device == "cuda" else "CPU", 0))
        self._wanted = max(1, self._workers or devices)
        for _ in range(self._wanted - len(self._slots)):
            self.add()

    def add(self) -> None:
        """Start one more actor."""
        # Ray sets OMP_NUM_THREADS to an actor's CPUs: one thread per worker, so that none waits for another.
        gpus = 1 if self._cluster.device == "cuda" else 0
        environment = None if self._cluster.is_embedded else {"env_vars": MEMORY_ENVIRONMENT}
        self._cluster.expect_head()
        options = self._kind.options(
            num_cpus=1, num_gpus=gpus, max_concurrency=self._in_flight + 1, runtime_env=environment
        )
        actor = options.remote(self._cluster.device)
        self._numbered += 1
        self._slots[self._numbered] = _Slot(actor, actor.is_ready.remote())

    def discard(self, number: int) -> None:
        """Stop an actor."""
        actor = self._slots.pop(number).actor
        if not self._cluster.is_lost:
            ray.kill(actor)

    def clear(self) -> None:
        """Stop all actors."""
        for number in [*self._slots]:
            self.discard(number)

    def await_first(self) -> None:
        """Warn from now on when no worker is there."""
        self._last_worker_at = time.monotonic()

    def arrivals(self) -> Iterator[int]:
        """Add the actors that have started since, and check now and then whether the cluster has grown.

        Raises:
            PoolError: none can be started, or an embedded cluster has died. Else what one raised while it loaded.
        """
        self._cluster.expect_own()
        starting = self.starting
        if starting:
            done, _ = ray.wait([*starting], num_returns=len(starting), timeout=0)
            for number in (starting[reference] for reference in done):
                if self._take_in(number):
                    yield number
        patience = GROWTH_SECONDS if self._failed_starts < FAILED_STARTS else ALONE_SECONDS
        if time.monotonic() - self._looked_at > patience:
            self._grow_with_cluster()
        if self.started:
            self.await_first()
        else:
            self._warn_if_alone()

    def _take_in(self, number: int) -> bool:
        """True if it has started; one that died while it loaded is replaced, a few times."""
        slot = self._slots[number]
        try:
            ray.get(slot.starting)
        except RayTaskError as error:
            raise cause_of(error) from error
        except RayError as error:
            self._failed_starts += not died_with_its_node(error)
            self.discard(number)
            if self._failed_starts < FAILED_STARTS:
                self.add()
            elif not self._slots:
                raise PoolError(
                    f"no worker can be started: {self._failed_starts} died while loading ({short_reason(error)}); look "
                    f"into Ray's logs, and check that overtile is installed with its packages where the workers run"
                ) from error
            return False
        slot.starting = None
        self._failed_starts = 0
        return True

    def _grow_with_cluster(self) -> None:
        """Grow with the cluster; while its head is silent, what is in flight continues without it."""
        self._looked_at = time.monotonic()
        if self._cluster.answers():
            self.grow()

    def _warn_if_alone(self) -> None:
        """Warn now and then that no worker is there."""
        now = time.monotonic()
        if now - self._last_worker_at > ALONE_SECONDS:
            logger.warning("no worker finds a place in the Ray cluster for %g s; waiting for a node", ALONE_SECONDS)
            self._last_worker_at = now
