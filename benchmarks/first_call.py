"""From nothing to labels: a wheel, an empty environment, and three lines of Python, with time and memory of each step.

    python -m benchmarks.first_call [--folder .benchmarks/work/first] [--extras cluster onnx geopandas anndata]

The wheel is built of what is committed, and installed with the versions of requirements.lock where pip finds them.
First without an extra, then with all of them. It prints a table: seconds of wall and of processors, and the peak
memory of the step's process. Beside other work only the processors' seconds tell something.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.slide import ROOT

LINES = """
import json, resource, sys, time
def told(step):
    now, used = time.perf_counter(), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([step, now - began[0], used - began[1], peak]), flush=True)
    began[:] = time.perf_counter(), time.process_time()
began = [time.perf_counter(), 0.0]
import numpy as np
pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), "uint8")
told("an array of NumPy, 512 x 512 x 3")
import overtile
told("import overtile")
result = overtile.segment_image(pixels, image_mpp=0.5, foreground="none", progress=False)
told("first segment_image")
labels = result.labels.compute()
told("its labels")
again = overtile.segment_image(pixels, image_mpp=0.5, foreground="none", progress=False)
told("second segment_image")
assert (labels == again.labels.compute()).all() and result.complete
assert not {"ray", "prefect"} & set(sys.modules), "an array needs neither"
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A step with what it took."""

    environment: str
    step: str
    wall_seconds: float
    processor_seconds: float
    peak_mb: float


def ran(environment: str, step: str, command: Sequence[object], folder: Path) -> tuple[Step, str]:
    """Run a command to its end; raises RuntimeError where it fails."""
    said, began = folder / "said.txt", time.perf_counter()
    with said.open("w+b") as stream:
        settings = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(
            [*map(str, command)], cwd=folder, stdout=stream, stderr=subprocess.STDOUT, env=settings
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = said.read_text(encoding="utf-8", errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{step} ended with {process.returncode}: {text[-1500:]}")
    seconds = time.perf_counter() - began
    return Step(environment, step, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024), text


def called(environment: str, python: Path, folder: Path) -> Iterator[Step]:
    """Run the lines in two new processes: the first reads its files from the disk, the second from memory."""
    for order in ("", ", another process"):
        whole, text = ran(environment, f"the whole of it{order}", [python, "-c", LINES], folder)
        for line in text.splitlines():
            if line.startswith("["):
                step, wall, used, peak = json.loads(line)
                yield Step(environment, f"{step}{order}", wall, used, peak)
        yield whole


def steps(folder: Path, extras: Sequence[str]) -> Iterator[Step]:
    """Walk from a clone of what is committed to labels, with no extra and then with those that are named."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source, none = folder / "source", "no extra"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, source], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    yield ran(none, "build the wheel", build, folder)[0]
    (wheel,) = folder.glob("overtile-*.whl")
    venv.create(folder / "empty", with_pip=True)
    python = folder / "empty" / "bin" / "python"
    lock = ROOT / "requirements.lock"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", lock]
    yield ran(none, "install it", [*install, wheel], folder)[0]
    yield from called(none, python, folder)
    yield ran(none, "overtile --version", [python.with_name("overtile"), "--version"], folder)[0]
    if extras:
        named = ", ".join(extras)
        yield ran(named, "install them", [*install, f"{wheel}[{','.join(extras)}]"], folder)[0]
        yield from called(named, python, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Walk from an empty environment to labels of an array.")
    parser.add_argument("--folder", type=Path, default=ROOT / ".benchmarks" / "work" / "first")
    parser.add_argument("--extras", nargs="*", default=["cluster", "onnx", "geopandas", "anndata"])
    parser.add_argument("--json", type=Path, help="a file for the figures too")
    asked = parser.parse_args()
    facts, load = machine.describe(), machine.load()
    print(f"{facts['processor']}, {facts['cores']} cores, load before {load:.1f}, commit {facts['commit']}")
    print("\n| extras | step | wall s | processor s | peak MB |\n|---|---|---:|---:|---:|")
    found: list[Step] = []
    for each in steps(asked.folder.resolve(), asked.extras):
        found.append(each)
        figures = f"{each.wall_seconds:.2f} | {each.processor_seconds:.2f} | {each.peak_mb:.0f}"
        print(f"| {each.environment} | {each.step} | {figures} |", flush=True)
    shutil.rmtree(asked.folder)
    if asked.json:
        page = {"machine": facts, "load_before": load, "rows": [asdict(each) for each in found]}
        asked.json.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
