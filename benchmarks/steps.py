"""Cost of each step around the network, one after another on an idle machine: seconds per gigapixel, and bytes.

    python -m benchmarks.steps --side 8192 --core 1024 --out runs/steps

Everything is the real step, but for the labels, which are the dark part of the tissue. Processor seconds count all
threads of a step. With `--reduced 4 16` the slide has a pyramid, as scanners write one; without, it has one level, and
what is drawn of it is drawn from all of it. With `--direct` nothing is staged: workers read the image itself. Beside
each step stands what the libraries under it take for the same bytes (`benchmarks.raw`), between the steps of the same
run; recording has no such part. A small slide goes before and the model is loaded before, as a command does once for
all slides; the fingerprint is no part of the plan. Beside the steps stands where each runs, and what the driver takes.
"""

from __future__ import annotations

import argparse
import gc
import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.raw import RawCosts, WatchedSource
from benchmarks.slide import write_slide
from flows.config.run import SegmentConfig
from flows.reporting.report import write_report
from flows.run.intended import RunRequest
from flows.run.model import Model, load_model
from flows.run.pictures import Drawn, draw
from flows.run.prepare import Prepared, prepare_with
from flows.run.steps import folded, record_result, remaining, stitch
from flows.worker.result import TileResult
from flows.worker.staging_worker import StagingWorker
from flows.worker.tuning import Tuning
from tiling.plan import Tile
from tiling.runs.label_counts import tile_counts
from tiling.runs.mask import Mask
from tiling.runs.reduced_levels import ReducedLevels
from tiling.runs.run import Run
from tiling.runs.staging import load_tile, staged_sizes
from tiling.runs.unchanged_source import open_with_version
from tiling.selection.coarse_data import COARSE_PX
from tiling.selection.find_foreground import find_foreground
from tiling.sources.downsample import screen_factor
from tiling.storage.place import size_of_tree
from tiling.storage.task_map import FEWEST_PIXELS, TaskMap

if TYPE_CHECKING:
    from tiling.source import ImageSource

DARK = 170
FIRST_PX = 2048

WHERE = {
    "fingerprint": "driver",
    "plan": "driver",
    "look": "stagers",
    "stage": "stagers",
    "read": "workers",
    "write": "workers",
    "record": "driver",
    "pyramid": "driver",
    "pictures": "stagers",
    "report": "driver",
}
"""Processes in which each step runs of a slide of `FEWEST_PIXELS` and more, staged: of the stagers, tasks instead where
no stager is idle. Below that the look for foreground is part of the plan.
"""


@dataclass(slots=True)
class Clock:
    """Seconds and processor seconds of each step, without those of steps that it takes in turn."""

    wall: dict[str, float] = field(default_factory=dict[str, float])
    cpu: dict[str, float] = field(default_factory=dict[str, float])
    _counted: tuple[float, float] = (0.0, 0.0)

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        before, wall, cpu = self._counted, time.perf_counter(), time.process_time()
        outcome = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        inner_wall, inner_cpu = (now - then for now, then in zip(self._counted, before, strict=True))
        self.wall[step] = self.wall.get(step, 0.0) + wall - inner_wall
        self.cpu[step] = self.cpu.get(step, 0.0) + cpu - inner_cpu
        self._counted = before[0] + wall, before[1] + cpu
        return outcome


def measure(image: Path, out: Path, core_px: int, *, staged: bool = True) -> dict[str, Any]:
    """All steps of a run of one slide but the network, and what the libraries under each take."""
    clock, raw = Clock(), RawCosts(image, out.parent)
    config = SegmentConfig(image=image, out=out, core=core_px, as_is=True)
    planned = plan(config, load_model(config), clock, raw)
    run, todo = planned.run, remaining(planned.run, planned.state, planned.strip_px)
    level = run.card.image.level
    with run.open_source() as source:
        watched = WatchedSource(source)
        find_foreground(cast("ImageSource", watched), level, "auto")  # as the plan did
        raw.view("look" if "look" in clock.cpu else "plan", watched, COARSE_PX)
    reduced = ReducedLevels.of(run, run.ledger.fold())
    with closing((StagedReads if staged else DirectReads)(run, clock, raw)) as reads:
        walk(run, todo, clock, reduced, raw, reads)
    state = clock.time("pyramid", lambda: stitch(run, folded(run), reduced))
    raw.pyramid(run.open_mask(read_only=True).pyramid)
    with run.open_source() as source:
        shown = WatchedSource(source)
        drawn: Drawn = clock.time("pictures", lambda: draw(run, cast("ImageSource", shown), state))
        raw.view("pictures", shown, screen_factor(source, level, run.plan.extent))
        clock.time("report", lambda: write_report(run, state, source, drawn.encoded))
    raw.pictures(Path(str(run.overlay_path)))
    raw.close()
    pixels = run.plan.image.area
    mask = size_of_tree(run.mask_path)
    driver = sum(seconds for step, seconds in clock.cpu.items() if WHERE[step] == "driver")
    sizes = {"image": image.stat().st_size, "staged": reads.bytes, "mask": mask}
    return {
        "staged": staged,
        "pixels": pixels,
        "tiles": run.plan.count,
        "core_px": core_px,
        "seconds_per_gigapixel": {step: seconds / pixels * 1e9 for step, seconds in clock.wall.items()},
        "cpu_seconds_per_gigapixel": {step: seconds / pixels * 1e9 for step, seconds in clock.cpu.items()},
        "where": WHERE,
        "driver_cpu_seconds": driver,
        "raw_cpu_seconds_per_gigapixel": {
            step: {part: seconds / pixels * 1e9 for part, seconds in parts.items()}
            for step, parts in raw.seconds.items()
        },
        "bytes_per_pixel": {name: size / pixels for name, size in sizes.items()},
    }


def plan(config: SegmentConfig, model: Model, clock: Clock, raw: RawCosts) -> Prepared:
    """Open an image and plan its run, as a night does that has loaded the model."""
    source, version = clock.time("plan", lambda: open_with_version(config.image))
    with source:
        clock.time("fingerprint", source.fingerprint)
        raw.fingerprint()
        tuned = Tuning("float32", config.core, {})
        request = RunRequest(model, source, version, config, 1, lambda _: tuned, tasks=partial(elsewhere, clock))
        return clock.time("plan", lambda: prepare_with(request))


def elsewhere(clock: Clock, pixels: int) -> TaskMap | None:
    """A map of work of other processes on so many pixels: what is sent to them and back pickles."""

    def work_there(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            there, sent = pickle.loads(pickle.dumps((work, item)))
            yield pickle.loads(pickle.dumps(clock.time("look", partial(there, sent))))

    return work_there if pixels >= FEWEST_PIXELS else None


class StagedReads:
    """Tiles that are staged, read and discarded."""

    def __init__(self, run: Run, clock: Clock, raw: RawCosts) -> None:
        run.create_staged()
        self._run, self._clock, self._raw = run, clock, raw
        self._stager, self._tiles, self.bytes = StagingWorker(), run.open_staged(), 0

    def read(self, tile: Tile) -> NDArray[np.generic]:
        (result,) = self._clock.time("stage", lambda: self._stager.stage(self._run.path, [tile.index]))
        assert result.reason is None, result.reason
        pixels = self._clock.time("read", lambda: self._tiles.read(tile.index))
        self._raw.stage(self._raw.load("stage", tile, self._run.plan.extent, pixels))
        self.bytes += staged_sizes(self._run.staged_path)[tile.index]
        return pixels

    def done(self, tile: Tile) -> None:
        self._clock.time("read", lambda: self._tiles.discard(tile.index))  # as a worker does that is done with it

    def close(self) -> None:
        self._run.remove_staged()


class DirectReads:
    """Tiles that are read from the image itself."""

    bytes = 0

    def __init__(self, run: Run, clock: Clock, raw: RawCosts) -> None:
        self._run, self._clock, self._raw = run, clock, raw
        self._source = run.open_verified()

    def read(self, tile: Tile) -> NDArray[np.generic]:
        level, plan = self._run.card.image.level, self._run.plan

        def load() -> NDArray[np.generic]:
            return self._source.read(lambda image: load_tile(image, level, plan, tile))

        pixels = self._clock.time("read", load)
        self._raw.load("read", tile, plan.extent, pixels)
        return pixels

    def done(self, tile: Tile) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self._source.close()


def walk(
    run: Run,
    todo: Sequence[int],
    clock: Clock,
    reduced: ReducedLevels | None,
    raw: RawCosts,
    reads: StagedReads | DirectReads,
) -> None:
    """Every tile's way but the network."""
    mask = run.open_mask()
    for tile in map(run.plan.tile, todo):
        pixels = reads.read(tile)
        inside = tile.valid.relative_to(tile.read)
        labels = dark(pixels[inside.slices])
        result = clock.time("write", lambda tile=tile, labels=labels: written(mask, tile, labels))
        raw.write(labels, mask.pyramid)
        reads.done(tile)
        clock.time("record", lambda result=result: record_result(run, mask, result, 1, reduced))
    run.ledger.flush()


def written(mask: Mask, tile: Tile, labels: NDArray[np.uint8]) -> TileResult:
    """Write a tile as its worker does once it has the labels."""
    digest = mask.write(tile, labels)
    chunks = mask.pyramid.reduced_chunks(labels, mask.pyramid.whole_levels)
    return TileResult(tile.index, digest, tile.valid.area, counts=tile_counts(labels), reduced=chunks)


def dark(pixels_YXC: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.less(pixels_YXC[..., 1], DARK).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the steps around the network.")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--core", type=int, default=1024)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reduced", type=int, nargs="*", default=[], help="the pyramid's further levels")
    parser.add_argument("--direct", action="store_true", help="read the image itself, without staging")
    given = parser.parse_args()
    levels = len(given.reduced) + 1
    name = f"steps-{given.side}-{levels}.svs"
    gc.freeze()  # as a command's process does with what it has loaded (flows.lifecycle.loading)
    image = write_slide(given.out.parent / name, given.side, reduced=tuple(given.reduced))
    shutil.rmtree(given.out, ignore_errors=True)
    # What a process does once is no slide's: the page's template, the modules that are loaded when they are needed.
    measure(write_slide(given.out.parent / "steps-first.svs", FIRST_PX), given.out, given.core, staged=not given.direct)
    shutil.rmtree(given.out)
    print(json.dumps({"levels": levels, **measure(image, given.out, given.core, staged=not given.direct)}))
    shutil.rmtree(given.out)


if __name__ == "__main__":
    main()
