"""Cost of an archive of small images for the driver: processor seconds and time per image, and where they go by step.

    python -m benchmarks.small --out runs/small [--images 133] [--source ../shared/data/nuclei/images]

One night over microscopy images of 256² to 1024² px, in this process as `overtile archive` holds it, from the first
image's plan to the last page. Start-up isn't counted. A step's processor seconds are its own thread's, without those
of the steps inside it; *other threads* is what is left of the whole process: Zarr's loop, Prefect's client, Ray's.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from flows.config.archive import ArchiveConfig
from flows.launch import run_flow
from flows.lifecycle.environment import quiet_environment

SOURCE = Path("../shared/data/nuclei/images")
SIDES_PX = range(256, 1025)
STEPS = {
    "plan": "flows.nightly.slide_job:SlideJob.plan",
    "open the image": "flows.nightly.slide_job:open_with_version",
    "prepare the run": "flows.nightly.slide_job:prepare_with",
    "intend": "flows.run.prepare:intend",
    "create the run": "tiling.runs.run:Run.create_or_resume",
    "create the mask": "flows.run.prepare:create_images",
    "foreground": "flows.run.prepare:skip_background",
    "record the begin": "flows.nightly.slide_job:SlideJob.begin",
    "create staged": "tiling.runs.run:Run.create_staged",
    "stage": "flows.pool.pool:Pool.stage",
    "give tiles": "flows.pool.pool:Pool._fill",
    "collect tiles": "flows.pool.pool:Pool._collect",
    "record a tile": "flows.nightly.slide_job:SlideJob.record_tile",
    "close": "flows.nightly.slide_job:SlideJob.close",
    "look at the image again": "flows.nightly.slide_job:expect_same_image",
    "pyramid": "flows.nightly.slide_job:stitch",
    "objects": "flows.nightly.slide_job:find_objects",
    "export": "flows.nightly.slide_job:export",
    "overlay": "flows.run.pictures:write_overlay",
    "close-ups": "flows.run.pictures:write_close_ups",
    "skipped tiles' picture": "flows.run.pictures:draw_skipped",
    "formats": "flows.run.steps:export_all",
    "report": "flows.run.steps:write_report",
    "measures": "flows.nightly.slide_job:measured",
    "remove staged": "tiling.runs.run:Run.remove_staged",
    "progress": "flows.nightly.watch:NightWatch.update",
    "begin a task": "flows.archive:begin_step",
    "page": "flows.archive:report",
}
"""Each step, and the function that is timed for it."""
_KINDS = {"uvicorn": "Prefect's server", "TileActor": "tile actors", "StagingActor": "stagers"}
_NUMBER = re.compile(r"[-_ ]?[0-9]+")


class Timers:
    """Processor seconds of steps, by thread, each without those of the steps inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside, self._lock = threading.local(), threading.Lock()

    def timed(self, step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def timed(*given: Any, **named: Any) -> Any:
            stack = self._inside.__dict__.setdefault("stack", [0.0])
            began = time.thread_time()
            stack.append(0.0)
            try:
                found = work(*given, **named)
                # A generator works while it is consumed.
                return [*found] if hasattr(found, "__next__") else found
            finally:
                spent, inner = time.thread_time() - began, stack.pop()
                stack[-1] += spent
                with self._lock:
                    self.seconds[step] += spent - inner

        return timed

    def watch(self, step: str, where: str) -> None:
        """Time a function or method, given as `module:name` or `module:Class.name`."""
        module, _, name = where.partition(":")
        holder: Any = import_module(module)
        *classes, name = name.split(".")
        for each in classes:
            holder = getattr(holder, each)
        found = holder.__dict__[name]
        is_class = isinstance(found, classmethod)
        timed = self.timed(step, found.__func__ if is_class else found)
        setattr(holder, name, classmethod(timed) if is_class else timed)


def write_archive(folder: Path, source: Path, images: int) -> Path:
    """So many images of the source whose sides are within bounds, evenly over their names."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fitting: list[Path] = []
    for path in sorted(source.glob("*.png")):
        with Image.open(path) as image:
            fitting += [path] if all(side in SIDES_PX for side in image.size) else []
    for number in range(min(images, len(fitting))):
        path = fitting[number * len(fitting) // images]
        shutil.copy(path, folder / path.name)
    return folder


def measure(folder: Path, out: Path, options: dict[str, Any], *, steps: bool = True) -> dict[str, Any]:
    """Hold one night over all images."""
    quiet_environment()
    timers, found = Timers(), dict[str, Any]()
    if steps:
        for step, where in STEPS.items():
            timers.watch(step, where)
    archive: Any = import_module("flows.archive")
    hold, tell = archive.segment_slides, archive.report

    def begun(*given: Any) -> Any:
        found["pool"] = given[0].pool.size
        found["wall"], found["cpu"] = time.perf_counter(), time.process_time()
        found["processes"] = processor_seconds()
        timers.seconds.clear()
        return hold(*given)

    def ended(*given: Any) -> None:
        tell(*given)
        found["wall"], found["cpu"] = time.perf_counter() - found["wall"], time.process_time() - found["cpu"]
        before, after = found["processes"], processor_seconds()
        found["processes"] = {kind: round(spent - before.get(kind, 0.0), 3) for kind, spent in after.items()}

    archive.segment_slides, archive.report = begun, ended
    asked = {"source": str(folder), "out": out, "settle": 0, **options}
    night = run_flow("segment_archive", ArchiveConfig.model_validate(asked), lambda now: None)
    seconds = dict(sorted(timers.seconds.items(), key=lambda each: -each[1]))
    images = len(night.records)
    spent = {kind: seconds / images for kind, seconds in found["processes"].items() if seconds >= images / 1000}
    shares = {step: spent / images for step, spent in seconds.items()}
    return {
        "images": images,
        "states": night.counts,
        "megapixels": night.pixels / 1e6,
        "workers": found["pool"],
        "driver_cpu_seconds_per_image": found["cpu"] / images,
        "seconds_per_image": found["wall"] / images,
        "cpu_seconds_per_image": spent,
        "steps_cpu_seconds_per_image": {**shares, "other threads": (found["cpu"] - sum(seconds.values())) / images},
    }


def processor_seconds() -> dict[str, float]:
    """Processor seconds of this process's threads, and of the processes that it started, by their names."""
    spent: dict[str, float] = defaultdict(float)
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    me = psutil.Process()
    for thread in me.threads():
        name = names.get(thread.id, "native threads")
        spent[f"driver: {_NUMBER.sub('', name)}"] += thread.user_time + thread.system_time
    for child in me.children(recursive=True):
        with suppress(psutil.Error):
            command, times = " ".join(child.cmdline()), child.cpu_times()
            kind = next((kind for sign, kind in _KINDS.items() if sign in command), child.name())
            spent[kind] += times.user + times.system
    return dict(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the driver's cost per small image.")
    parser.add_argument("--images", type=int, default=133)
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--no-steps", action="store_true", help="only the sums: no step is timed")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    folder = write_archive(given.out.parent / f"small-{given.images}", given.source, given.images)
    shutil.rmtree(given.out, ignore_errors=True)
    options = {"model": given.model, "workers": given.workers, "as_is": True}
    figures = measure(folder, given.out, options, steps=not given.no_steps)
    shutil.rmtree(given.out)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
