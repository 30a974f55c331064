"""What numbering objects takes: processor seconds per gigapixel by pass, and peak memory, for masks of any size.

    python -m benchmarks.objects --rule border --side 8192 --out .benchmarks/work/objects
    python -m benchmarks.objects --rule filled --side 8192 --out .benchmarks/work/objects --table

With `--table` the image is a slide of mirrored tissue in JPEG, and the objects' table is exported, too; beside its time
stands what decoding all of the image takes by itself, in the same blocks. The mask holds 100 nuclei for each megapixel,
every second one touching its neighbour, each with a rim of the border class, which under `components` is an object of
its own. Beside all that stands what libraries take to read the mask, label its connected areas band by band, count
their pixels and compress the numbers, in one thread. Making the mask isn't counted, nor is loading libraries.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import raw
from benchmarks.export_runs import make, make_over
from benchmarks.slide import write_slide
from tiling.export.export_run import export_run
from tiling.objects.build import build_objects
from tiling.objects.image import open_objects
from tiling.objects.record import ask_for_objects
from tiling.objects.rule import builtin_rule
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run
from tiling.source import open_source

PITCH_PX, RADII_PX, RIM_PX = 100, (8, 22), 2
SPECS = {
    "components": ObjectSpec(),
    "border": ObjectSpec(rule="border", border=2, radius_px=4, least_px={1: 40}),
    "filled": ObjectSpec(rule="border", border=2, radius_px=4, least_px={1: 40}, filled=(1,)),
}


def nuclei(y0: int, y1: int, width: int) -> NDArray[np.uint8]:
    """Rows of the mask, made as wanted: the same whichever rows are asked for at a time."""
    first, last = y0 // PITCH_PX - 1, y1 // PITCH_PX + 1
    labels = np.zeros(((last - first + 1) * PITCH_PX, width + 2 * PITCH_PX), np.uint8)
    for row in range(first, last):
        random = np.random.default_rng(row + 1)
        for col in range(width // PITCH_PX):
            radius = random.integers(*RADII_PX)
            y, x = (row - first) * PITCH_PX + int(random.integers(60)), col * PITCH_PX + (0 if col % 2 else 62)
            _draw(labels[y : y + 60, x : x + 60], int(radius))
    return labels[y0 - first * PITCH_PX :][: y1 - y0, :width]


def _draw(place: NDArray[np.uint8], radius: int) -> None:
    rows, cols = np.ogrid[: place.shape[0], : place.shape[1]]
    away = np.hypot(rows - 30, cols - 30)
    place[(away < radius) & (place == 0)] = 2
    place[away < radius - RIM_PX] = 1


def measured(run: Run, rule: str) -> dict[str, Any]:
    """Number a run's objects once, in one thread."""
    spec, state = SPECS[rule], run.ledger.fold(held=True)
    ask_for_objects(run, state, spec)
    began, wall = time.process_time(), time.monotonic()
    image = build_objects(run, state, spec, builtin_rule(spec), threads=1)
    seconds, gigapixels = time.process_time() - began, run.plan.mask.area / 1e9
    return {
        "rule": rule,
        "side_px": run.plan.extent[0],
        "objects": image.count,
        "cpu_seconds_per_gigapixel": round(seconds / gigapixels, 2),
        "wall_seconds": round(time.monotonic() - wall, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def measured_table(run: Run) -> dict[str, Any]:
    """Export the table of a run's numbered objects once, in one thread, and decode its image once."""
    state, gigapixels = run.ledger.fold(held=True), run.plan.mask.area / 1e9
    with open_source(run.card.image.path) as source:
        began, wall = time.process_time(), time.monotonic()
        export_run(run, source, "table", state, again=True, threads=1)
        seconds, wall = time.process_time() - began, time.monotonic() - wall
    objects = open_objects(run)
    assert objects is not None
    with open_source(run.card.image.path) as source:
        began = time.process_time()
        for block in objects.grid:
            source.read(0, block.box)
        decoding = time.process_time() - began
    return {
        "table_cpu_seconds_per_gigapixel": round(seconds / gigapixels, 2),
        "of_which_decoding": round(decoding / gigapixels, 2),
        "table_wall_seconds": round(wall, 2),
        "table_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def measured_raw(run: Run) -> dict[str, Any]:
    """Libraries' cost of the same numbers."""
    gigapixels = run.plan.mask.area / 1e9
    parts = {part: round(seconds / gigapixels, 2) for part, seconds in raw.objects(run).items()}
    return {"raw_cpu_seconds_per_gigapixel": parts}


def main() -> None:
    parser = argparse.ArgumentParser(description="Number the objects of a drawn mask.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--rule", choices=[*SPECS], default="border")
    parser.add_argument("--keep", action="store_true", help="keep the run, and use one that is there")
    parser.add_argument("--table", action="store_true", help="over an image with pixels, of which objects are measured")
    asked = parser.parse_args()
    folder = asked.out / f"nuclei-{asked.side}{'-tissue' * asked.table}"
    if (folder / "run" / "run.json").is_file():
        run = Run.open(folder / "run")
    elif asked.table:
        image = write_slide(folder / "tissue.tif", asked.side, described=False)
        bands = ("red", "green", "blue")
        run = make_over(image, bands, folder / "run", asked.side, lambda y0, y1: nuclei(y0, y1, asked.side))
    else:
        run = make(folder, asked.side, lambda y0, y1: nuclei(y0, y1, asked.side))
    found = measured(run, asked.rule) | (measured_table(run) if asked.table else {})
    print(json.dumps(found | measured_raw(run)))  # last, since its memory counts for neither peak
    if not asked.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
