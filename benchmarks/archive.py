"""Utilisation of the actors over an archive of slides, and the cost of the same slides one by one.

    python -m benchmarks.archive --slides 20 --out runs/archive [--precision bfloat16]

Busy is an actor that has a tile, between the first tile of the night and the last; computing is one whose device does.
Slides are of several sizes, so that most of them end with a row of small tiles, and one is corrupt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.slide import tissue, write_slide
from flows.archive import segment_archive
from flows.config.archive import ArchiveConfig
from flows.errors import IncompleteError
from flows.nightly.night import NightSummary
from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideState
from tiling.runs.run import Run

SIDES_PX = (1024, 1536, 2048, 2560)


def write_archive(folder: Path, slides: int) -> Path:
    """Slides whose sizes come in turn; those that are there stay."""
    base = tissue()[1]
    for number in range(slides):
        # Turned by a few rows each, so that no two have the same content.
        write_slide(folder / f"{number:03}.svs", SIDES_PX[number % len(SIDES_PX)], np.roll(base, 8 * number, axis=0))
    (folder / "corrupt.svs").write_bytes((folder / "000.svs").read_bytes()[:5000])
    return folder


def measure(folder: Path, out: Path, precision: str, core_px: int) -> dict[str, Any]:
    """Hold one night over all slides."""
    shutil.rmtree(out, ignore_errors=True)
    asked = {"source": str(folder), "out": out, "precision": precision, "core": core_px, "settle": 0}
    began = time.monotonic()
    try:
        night = segment_archive(ArchiveConfig.model_validate({**asked, "foreground": "none"}))
    except IncompleteError as error:
        night = cast("NightSummary", error.outcome)
    done = night.of(SlideState.DONE)
    runs = [Run.open(Archive.open(out).run_path(record.folder)) for record in done]
    states = [run.ledger.fold() for run in runs]
    computing = sum(state.seconds["compute"] for state in states)
    workers = runs[0].card.memory.workers
    shutil.rmtree(out)
    return {
        "slides": len(done),
        "failed": len(night.failed),
        "tiles": sum(record.tiles for record in done),
        "pixels": night.pixels,
        "workers": workers,
        "precision": precision,
        "core_px": core_px,
        "busy_share": night.busy_share,
        "computing_share": computing / (workers * night.inference_seconds),
        "inference_seconds": night.inference_seconds,
        "seconds": time.monotonic() - began,
        "pixels_per_second": night.pixels / night.inference_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how busy actors are over an archive.")
    parser.add_argument("--slides", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--core", type=int, default=512)
    given = parser.parse_args()
    folder = write_archive(given.out.parent / f"archive-{given.slides}", given.slides)
    print(json.dumps(measure(folder, given.out, given.precision, given.core)))


if __name__ == "__main__":
    main()
