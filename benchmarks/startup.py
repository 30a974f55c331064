"""Start-up included: from the command to the first finished tile, and to the overlay, on the real slide.

python -m benchmarks.startup IMAGE --out runs/start [--precision bfloat16]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tiling.runs.run import Run

TIMEOUT_SECONDS = 600


def measure(image: Path, out: Path, options: list[str]) -> dict[str, float]:
    """Seconds after the command of: the first finished tile, the overlay, the command's end."""
    shutil.rmtree(out, ignore_errors=True)
    overtile = Path(sys.executable).with_name("overtile")
    command = [str(overtile), "segment", str(image), "--model", "nuclei-small", "--out", str(out), *options]
    started = time.time()
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    ended = time.time()
    run = Run.open(out)
    first = run.ledger.fold().first_time
    assert first is not None
    overlay = (out / "overlay.png").stat().st_mtime
    return {"first_tile": first - started, "overlay": overlay - started, "end": ended - started}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a cold start.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default=None)
    given = parser.parse_args()
    options = ["--precision", given.precision] if given.precision else []
    found = measure(given.image, given.out, options)
    shutil.rmtree(given.out)
    print(json.dumps({"seconds": found, "precision": given.precision or "default"}))


if __name__ == "__main__":
    main()
