"""overtile from opening a file to labels on disk, measured inside the real flow.

    python -m benchmarks.pipeline slide.svs --out runs/b --precision bfloat16 --core 512 [--no-staging]

The clock starts where the flow opens the image and stops when the ledger has the last tile, whose shard is on
disk by then; a second clock stops when the pyramid is closed. Opening, fingerprinting, planning, making the
arrays, staging, reading, computing and writing are inside. What a pool that is up already need not do again is
outside: starting Ray, its actors and Prefect, importing torch, loading the weights, building the kernels and
touching memory for the first time; for that the flow runs once before in the same pool, as it does on every slide
of an archive but the first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from benchmarks.memory import cpu_seconds
from flows import segment as flow
from flows.config.run import SegmentConfig
from flows.pool.open import started_pool
from flows.pool.pool import Pool
from tiling.runs.run import Run

Given = ParamSpec("Given")
Result = TypeVar("Result")


class KeptPool(Pool):
    """A pool that outlives the flow that uses it, so that the next one finds it warm."""

    def __enter__(self) -> KeptPool:
        if self.size == 0:
            super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        super().__exit__()


class Clock:
    """When the flow opened the image: a look at the time before the flow's own `prepared`."""

    def __init__(self) -> None:
        self.opened_at = 0.0

    def before(self, function: Callable[Given, Result]) -> Callable[Given, Result]:
        def watched(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            self.opened_at = time.time()
            return function(*args, **kwargs)

        return watched


def measure(config: SegmentConfig, warm_up: SegmentConfig) -> dict[str, Any]:
    """Segment twice in one pool, and return the figures of the second time."""
    clock = Clock()
    flow.prepared = clock.before(flow.prepared)
    pool = KeptPool(config.workers)
    with pool:
        started_pool.set(pool)
        flow.segment(warm_up)
        used, called_at = cpu_seconds(os.getpid()), time.time()
        outcome = flow.segment(config)
        ended_at = time.time()
        cpu = {kind: round(value - used.get(kind, 0.0), 2) for kind, value in cpu_seconds(os.getpid()).items()}
        workers = pool.size
        pool.close()
    if not outcome.complete:
        raise SystemExit(f"{len(outcome.failed)} tiles failed: {outcome.failed}")
    return figures(Run.open(config.out), clock.opened_at, called_at, ended_at) | {
        "workers": workers,
        "cpu_seconds": cpu,
    }


def figures(run: Run, opened_at: float, called_at: float, ended_at: float) -> dict[str, Any]:
    """Seconds and rates from the ledger of a finished run, all on the clock of the machine."""
    state = run.ledger.fold()
    planned, stitched = state.last_event("planned"), state.last_event("stitched")
    assert planned is not None
    assert stitched is not None
    assert state.first_time is not None
    assert state.last_time is not None
    height, width = run.plan.extent
    seconds = state.last_time - opened_at
    return {
        "pixels": height * width,
        "tiles": run.plan.count,
        "seconds": seconds,
        "pixels_per_second": height * width / seconds,
        "seconds_to_plan": planned.time - opened_at,
        "seconds_to_first_tile": state.first_time - opened_at,
        "seconds_to_pyramid": stitched.time - opened_at,
        "seconds_before_opening": opened_at - called_at,
        "seconds_after_last_tile": ended_at - state.last_time,
        "seconds_of_flow": ended_at - called_at,
        "stage_seconds": state.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure overtile from file to labels on disk.")
    parser.add_argument("slide", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--core", type=int, default=512)
    parser.add_argument("--staging", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--model", default="nuclei-small")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--warm-up", type=Path, help="a slide to begin with; the same by default")
    given = parser.parse_args()
    warm_out = given.out.with_name(f"{given.out.name}-warm-up")
    config = SegmentConfig(
        image=given.slide,
        out=given.out,
        model=given.model,
        core=given.core,
        precision=given.precision,
        foreground="none",
        workers=given.workers,
        staging=given.staging,
    )
    for folder in (given.out, warm_out):
        shutil.rmtree(folder, ignore_errors=True)
    warm_up = {"out": warm_out, "image": given.warm_up or given.slide}
    found = measure(config, config.model_copy(update=warm_up))
    shutil.rmtree(warm_out)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
