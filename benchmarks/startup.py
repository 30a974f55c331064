"""Start-up included: from the command to the first finished tile, and to the overlay, on the real slide.

python -m benchmarks.startup IMAGE --out runs/start [--precision bfloat16] [--steps]

With `--steps` also when each step before the first tile began and ended, in seconds after the command
(`benchmarks.marks`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tiling.runs.run import Run

TIMEOUT_SECONDS = 600


def measure(image: Path, out: Path, options: list[str], *, steps: bool = False) -> dict[str, Any]:
    """Seconds after the command of: the first finished tile, the overlay, the command's end; and of the steps."""
    shutil.rmtree(out, ignore_errors=True)
    marks = out.with_name(f"{out.name}-marks.json")
    overtile = [sys.executable, "-m", "benchmarks.marks", str(marks)]
    if not steps:
        overtile = [str(Path(sys.executable).with_name("overtile"))]
    command = [*overtile, "segment", str(image), "--model", "nuclei-small", "--out", str(out), *options]
    started = time.time()
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    ended = time.time()
    run = Run.open(out)
    first = run.ledger.fold().first_time
    assert first is not None
    overlay = (out / "overlay.png").stat().st_mtime
    found: dict[str, Any] = {"first_tile": first - started, "overlay": overlay - started, "end": ended - started}
    if steps:
        taken = json.loads(marks.read_text(encoding="utf-8"))
        found["steps"] = {step: [round(at - started, 2) for at in when] for step, when in taken.items()}
        marks.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a cold start.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default=None)
    parser.add_argument("--steps", action="store_true", help="say when each step began and ended")
    given = parser.parse_args()
    options = ["--precision", given.precision] if given.precision else []
    found = measure(given.image, given.out, options, steps=given.steps)
    shutil.rmtree(given.out)
    print(json.dumps({"seconds": found, "precision": given.precision or "default"}))


if __name__ == "__main__":
    main()
