"""The Ray actors: plain workers that Ray starts, places and calls."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from flows.lifecycle.loading import uncollected
from flows.worker.result import RecheckResult, TileResult
from tiling.storage.place import place_of

if TYPE_CHECKING:
    from flows.worker.tuning import Tuning, TuningRequest

DEVICE_VARIABLE = "OVERTILE_DEVICE"

Item = TypeVar("Item")
Result = TypeVar("Result")


@ray.remote
class TileActor:
    """One device's worker. Its threads overlap one tile's computing with its neighbours' reading and writing."""

    def __init__(self, device: str) -> None:
        # Here and not above: the driver starts Ray before it has loaded torch, and the two load side by side.
        with uncollected(own_process=True):
            from flows.worker.tile_worker import TileWorker
            from unet_core.inference.device import warm_up

        # A node's own word wins: a recipe for GPU nodes is tried where there is none, with declared resources.
        self._device = os.environ.get(DEVICE_VARIABLE, device)
        self._name = name_of_this_process()
        self._worker = TileWorker(self._device)
        warm_up()

    def is_ready(self) -> bool:
        """Answers as soon as the actor has loaded what it needs."""
        return True

    def process(self, run_path: str, index: int, staged: bool) -> TileResult:
        return replace(self._worker.process(place_of(run_path), index, staged=staged), worker=self._name)

    def process_several(self, run_path: str, indices: list[int], staged: bool) -> list[TileResult]:
        """Results of tiles in turn, up to the first that raises anything: the caller gives it out again by itself."""
        results = list[TileResult]()
        for index in indices:
            try:
                results.append(self._worker.process(place_of(run_path), index, staged=staged))
            except Exception:
                if not results:
                    raise
                break
        return [replace(each, worker=self._name) for each in results]

    def check(self, run_path: str, core_px: int, index: int) -> RecheckResult:
        return self._worker.check(place_of(run_path), core_px, index)

    def tune(self, request: TuningRequest) -> Tuning:
        from flows.worker.tuning import tune

        return tune(request, self._device)


@ray.remote
class StagingActor:
    """Stages tiles where processors are free."""

    def __init__(self) -> None:
        with uncollected(own_process=True):
            from flows.worker.staging_worker import StagingWorker

        self._worker = StagingWorker()

    def stage(self, run_path: str, indices: list[int]) -> list[TileResult]:
        return self._worker.stage(place_of(run_path), indices)

    def work(self, work: Callable[[Item], Result], item: Item) -> Result:
        """Result of other work on an item, while there is nothing to stage."""
        return work(item)


def name_of_this_process() -> str:
    """Host, process, and the Ray node, of which a host may have several: as the ledger names who computed a tile."""
    return f"{socket.gethostname()} {os.getpid()} {ray.get_runtime_context().get_node_id()[:12]}"


def cause_of(error: RayTaskError) -> Exception:
    """The error itself, as the remote worker raised it."""
    return error.cause if isinstance(error.cause, Exception) else error


def died_with_its_node(error: RayError) -> bool:
    """True if an actor is gone because its machine is; Ray tells only in words."""
    return "its node has died" in str(error)


def short_reason(error: Exception) -> str:
    """An error's message without the remote traceback below it; for a dead actor, why it died.

    Of an actor Ray says first that it died, then in indented lines which it was, and then why, with common causes.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ActorDiedError) and not error.actor_init_failed:
        lines = [line for line in lines[1:] if not line[0].isspace()] or lines
    return lines[0].partition(" Some common causes")[0].strip() if lines else type(error).__name__
