"""The driver's cost per tile: the real pool, backlog, ledger and flow tasks, with actors that do nothing.

python -m benchmarks.driver --tiles 100000 --workers 64 --out runs/driver

What is measured begins when all actors have started: sixty-four of them share this machine's cores with the driver, and
would for a minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import ray
from prefect import flow

from flows import segment as stages
from flows.config.run import SegmentConfig
from flows.pool.backlog import Backlog
from flows.pool.pool import UNSTAGED_PER_WORKER, Pool
from flows.run.prepare import prepare
from flows.worker.tile_worker import TileResult
from tiling.runs.ledger import TileState
from tiling.runs.run import Run

CORE_PX = 16  # the smallest that the stride allows: many tiles of few pixels
BLANK_TILE_PX = 256
DIGEST = "0" * 32


@ray.remote
class IdleActor:
    """Answers as a tile actor does, without reading, computing or writing."""

    def __init__(self, device: str) -> None:
        self._device = device

    def is_ready(self) -> bool:
        return True

    def process(self, run_path: str, index: int, staged: bool) -> TileResult:
        del run_path, staged
        seconds = {"read": 0.0, "compute": 0.0, "write": 0.0}
        return TileResult(index, DIGEST, CORE_PX**2, seconds, counts={0: CORE_PX**2})

    def process_several(self, run_path: str, indices: list[int], staged: bool) -> list[TileResult]:
        return [self.process(run_path, index, staged) for index in indices]


@flow(name="idle-tiles", validate_parameters=False)
def walk(config: SegmentConfig, workers: Pool) -> tuple[Run, dict[str, float]]:
    """A segmentation up to the pyramid; what is measured begins after the plan."""
    # Planned for two: that so many real workers would not fit this machine's memory is no matter of the driver's.
    run = prepare(config, min(workers.size, 2), workers.tune)
    todo = stages.remaining(run)
    backlog = Backlog(limit=UNSTAGED_PER_WORKER * workers.size)
    wall, cpu = time.perf_counter(), time.process_time()
    staging = stages.stage.submit(run, workers, todo, backlog, staged=False)
    stages.infer(run, workers, todo, backlog)
    staging.result()
    return run, {"seconds": time.perf_counter() - wall, "driver_cpu_seconds": time.process_time() - cpu}


def measure(slide: Path, out: Path, workers: int | None) -> dict[str, Any]:
    """Walk all tiles of the slide's plan and return what each cost."""
    shutil.rmtree(out, ignore_errors=True)
    with Pool(workers, actor=IdleActor) as pool:
        wait_for_all(pool)
        config = SegmentConfig(image=slide, out=out, core=CORE_PX, foreground="none")
        run, found = walk(config, pool)
        actors = pool.size
    state = run.ledger.fold()
    tiles = state.count(TileState.DONE)
    assert tiles == run.plan.count
    shutil.rmtree(out)
    return {
        "tiles": tiles,
        "actors": actors,
        **found,
        "milliseconds_per_tile": 1e3 * found["seconds"] / tiles,
        "driver_cpu_milliseconds_per_tile": 1e3 * found["driver_cpu_seconds"] / tiles,
    }


def wait_for_all(pool: Pool) -> None:
    """Until every actor has answered once, the stagers too, which have nothing to do here."""
    ray.get([actor.is_ready.remote() for actor in pool._roster.actors])  # pyright: ignore[reportPrivateUsage]
    ray.get([each.__ray_ready__.remote() for each in pool._stagers.actors])  # pyright: ignore[reportPrivateUsage]


def write_blank(path: Path, tiles: int) -> Path:
    """An image with at least so many cores: a black tiled TIFF, whose pixels are never read."""
    import numpy as np
    import tifffile

    side_px = math.ceil(math.sqrt(tiles)) * CORE_PX
    height = math.ceil(tiles / (side_px // CORE_PX)) * CORE_PX
    tile = (BLANK_TILE_PX, BLANK_TILE_PX)
    count = math.ceil(height / BLANK_TILE_PX) * math.ceil(side_px / BLANK_TILE_PX)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path,
        itertools.repeat(np.zeros((*tile, 3), np.uint8), count),
        shape=(height, side_px, 3),
        dtype=np.uint8,
        tile=tile,
        photometric="rgb",
        compression="zlib",
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the driver's cost per tile.")
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=None)
    given = parser.parse_args()
    slide = write_blank(given.out.parent / f"blank-{given.tiles}.tif", given.tiles)
    print(json.dumps(measure(slide, given.out, given.workers)))


if __name__ == "__main__":
    main()
