"""Growth: seconds per megapixel and each process's peak memory, for slides of more and more pixels."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.process import Figures, run
from benchmarks.slide import write_slide

CORE_PX = 512
PRECISION = "bfloat16"
REPEATED_UP_TO_PX = 8192
WARM_UP_PX = 2048
BYTES_PER_PIXEL = 0.5  # slide, mask and pyramid together, with room to spare


def hold(folder: Path, sides_px: Sequence[int], rounds: int, log: Callable[[str], None]) -> Iterator[Figures]:
    """Segment slides of growing sides; small ones once per round, large ones once."""
    warm_up = write_slide(folder / f"slide-{WARM_UP_PX}.svs", WARM_UP_PX)
    for number in range(rounds):
        for side_px in sides_px:
            if number and side_px > REPEATED_UP_TO_PX:
                continue
            needed = round(side_px**2 * BYTES_PER_PIXEL)
            if shutil.disk_usage(folder).free < needed:
                log(f"{side_px} px is left out: it needs {needed / 1e9:.1f} GB of disk")
                continue
            slide = write_slide(folder / f"slide-{side_px}.svs", side_px)
            out = folder / f"growth-{side_px}"
            command = [sys.executable, "-m", "benchmarks.pipeline", str(slide), "--out", str(out)]
            command += ["--precision", PRECISION, "--core", str(CORE_PX), "--warm-up", str(warm_up)]
            row: Figures = {"kind": "growth", "side_px": side_px, "round": number, **run(command, sample_seconds=1.0)}
            shutil.rmtree(out)
            log(f"{side_px} px: {row['pixels_per_second'] / 1e6:.2f} MPix/s")
            yield row
