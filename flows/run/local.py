"""A run in the caller's own process: the flow's steps on one device, without Ray and Prefect.

The plan, the tile worker and the steps are the flow's own, so the run folder and its labels are too.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial

from flows.config.run import RerunConfig, SegmentConfig
from flows.lifecycle.stopping import StopRequest, stop_on_signals
from flows.pool.cores import usable_cores
from flows.pool.scheduler import IN_FLIGHT_PER_ACTOR
from flows.reporting.progress import Progress, begin_stage, report_progress
from flows.run.changed_image import expect_same_image, settled
from flows.run.pictures import drawing
from flows.run.prepare import prepared
from flows.run.steps import (
    Outcome,
    chosen_tiles,
    export,
    find_objects,
    finish,
    folded,
    record_result,
    remaining,
    reopen,
    stitch,
    summarise,
)
from flows.worker.result import TileResult
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import Tuning, TuningRequest, tune
from tiling.errors import ImageChangedError
from tiling.export.formats import NONE
from tiling.runs.ledger import INFERRING
from tiling.runs.reduced_levels import ReducedLevels
from tiling.runs.run import Run
from tiling.storage.place import lock_run
from unet_core.inference.device import device_name, few_threads

logger = logging.getLogger(__name__)


def segment_here(config: SegmentConfig) -> Outcome:
    """Segment one image in this process; the same call resumes, as does the flow.

    Raises:
        TilingError, UnetCoreError, FlowError, OSError: as the flow does.
        KeyboardInterrupt: interrupted; the tiles in flight have ended.
    """
    started, device = time.monotonic(), device_name(config.device)
    Run.expect_room(config.out)  # before a lock is left in what is no run
    with lock_run(config.out), few_threads(usable_cores()):
        begin_stage("plan")
        planned = prepared(config, 1, partial(_tuned, device=device))
        run = planned.run
        reduced = ReducedLevels.of(run, planned.state)
        _compute(run, remaining(run, planned.state, planned.strip_px), device, reduced)
        return _closed(run, config.export, started, trust_code=config.trust_code, reduced=reduced)


def rerun_here(config: RerunConfig) -> Outcome:
    """Compute single tiles of a run again in this process."""
    started, device = time.monotonic(), device_name(config.device)
    Run.open(config.run)  # before a lock is left in what is no run
    with lock_run(config.run), few_threads(usable_cores()):
        run = reopen(config)
        _compute(run, chosen_tiles(run, config), device)
        return _closed(run, NONE, started)


def _closed(
    run: Run, formats: str, started: float, *, trust_code: bool = False, reduced: ReducedLevels | None = None
) -> Outcome:
    state = stitch(run, folded(run), reduced)
    with drawing(run, state) as pictures:
        find_objects(run, state, trust_code=trust_code)
        export(run, formats, state, pictures=pictures)
    finish(run, keep_staged=False)
    return summarise(run, started, state)


def _tuned(request: TuningRequest, device: str) -> Tuning:
    """Measure what only a measurement can tell. A core isn't measured: it takes longer than what it would save."""
    if request.precision == "auto" or request.approximate_halo_px is not None:
        return tune(request, device)
    return Tuning(request.precision, request.core_px, {})


@cache
def _worker(device: str, process: int) -> TileWorker:
    """One worker per device and process, whose models stay loaded from call to call; a forked process has its own."""
    del process
    return TileWorker(device)


def _compute(run: Run, todo: Sequence[int], device: str, reduced: ReducedLevels | None = None) -> None:
    """Label tiles and record the outcome of each."""
    if not todo:
        return
    mask, count = run.open_mask(), _Count(run, len(todo))
    run.ledger.announce(INFERRING, {"todo": len(todo), "workers": 1})
    try:
        # Closed here, whatever ends the loop: no tile is written any more once the run's lock is released.
        with (
            stop_on_signals(only=signal.SIGINT) as stop,
            closing(_results(run, todo, device, stop)) as results,
        ):
            for result in results:
                record_result(run, mask, result, 1, reduced)
                count.add(result)
    except ImageChangedError as error:
        run.ledger.flush()
        raise settled(run, todo, error) from error
    finally:
        run.ledger.flush()
        if reduced is not None:
            reduced.close()
    run.ledger.announce("inferred", {"workers": 1, "stagers": 0, "seconds": count.seconds})
    expect_same_image(run, todo)
    if stop.by is not None:
        raise KeyboardInterrupt


def _results(run: Run, todo: Sequence[int], device: str, stop: StopRequest) -> Generator[TileResult]:
    """Outcomes in the plan's order. While one tile computes, its neighbours are read and written."""
    process, name = _worker(device, os.getpid()).process, f"{socket.gethostname()} {os.getpid()}"
    waiting, running = deque(todo), deque[Future[TileResult]]()
    with ThreadPoolExecutor(IN_FLIGHT_PER_ACTOR, "overtile-tile") as threads:
        while running or (waiting and not stop.is_requested):
            while waiting and len(running) < IN_FLIGHT_PER_ACTOR and not stop.is_requested:
                running.append(threads.submit(process, run.path, waiting.popleft(), staged=False))
            yield replace(running.popleft().result(), worker=name)


@dataclass(slots=True)
class _Count:
    """Counts tiles as they end and reports the progress."""

    run: Run
    todo: int
    done: int = 0
    failed: int = 0
    pixels: int = 0
    started: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self._report()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 3)

    def add(self, result: TileResult) -> None:
        self.done += 1
        self.failed += result.digest is None
        self.pixels += result.pixels
        if result.reason is not None:
            logger.info("tile %s failed: %s", self.run.plan.tile(result.tile).name, result.reason)
        self._report()

    def _report(self) -> None:
        total = self.run.plan.count
        done, seconds = total - self.todo + self.done, self.seconds
        report_progress(Progress("infer", done, total, self.failed, self.pixels, seconds, self.done))
