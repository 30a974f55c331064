"""Fuzzing of mutated images in a process that may die of them: `make fuzz ARGS="--count 20000 --seed 1"`."""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from mutations import Good, mutate, real_files, write_good_files
from source_oracle import SECONDS, open_and_read

from tiling.errors import SourceError

MEMORY_BYTES = 2**30
"""More than this above what the process held before, for one file, counts as a failure."""
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
GUARD_BYTES = 6 * 2**30
HANG_SECONDS = 3 * SECONDS
SCRATCH = Path("/dev/shm")


@dataclass(slots=True)
class Tried:
    """The outcome of one mutation."""

    seed: int
    good: str
    mutation: str
    outcome: str = "killed its process"
    seconds: float = 0.0
    memory_bytes: int = 0
    detail: str = ""


@dataclass(slots=True)
class Report:
    """Counts over all mutations, and every one that was neither read nor refused within the bounds."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    by_mutation: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    seconds: float = 0.0
    memory_bytes: int = 0
    failures: list[Tried] = field(default_factory=list[Tried])

    def add(self, tried: Tried) -> None:
        if tried.outcome in {"read", "refused"}:
            if tried.seconds > SECONDS:
                tried.outcome = "too slow"
            elif tried.memory_bytes > MEMORY_BYTES:
                tried.outcome = "too much memory"
        self.outcomes[tried.outcome] += 1
        self.by_mutation.setdefault(tried.mutation, Counter())[tried.outcome] += 1
        self.seconds = max(self.seconds, tried.seconds)
        self.memory_bytes = max(self.memory_bytes, tried.memory_bytes)
        if tried.outcome not in {"read", "refused"}:
            self.failures.append(tried)


def fuzz(files: list[Good], seeds: Iterable[int]) -> Report:
    """Try the seeds' mutations, each in a child process that goes on with the next until it dies."""
    report, todo = Report(), list(seeds)
    while todo:
        tried = _in_a_child(files, todo)
        for each in tried:
            report.add(each)
        todo = todo[len(tried) :]
    return report


def _in_a_child(files: list[Good], seeds: list[int]) -> list[Tried]:
    """What a child process tells before it dies or is through; the last one is what it died of, if it did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            _try_all(files, seeds, writing)
            status = 0
        except BaseException:  # noqa: BLE001 (reported below; a child must never return into its parent's code)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    tried: list[Tried] = []
    started: Tried | None = None
    for report in _lines(reading, child):
        if report is None:
            os.kill(child, signal.SIGKILL)
            if started is not None:
                started.outcome, started.seconds = "hung", HANG_SECONDS
        elif report.outcome == "started":
            started = report
        else:
            tried.append(report)
            started = None
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if started is not None:
        if started.outcome == "started":
            started.outcome, started.detail = "killed its process", f"status {status}"
        tried.append(started)
    assert tried, f"the child tried nothing (status {status})"
    return tried


def _lines(pipe: int, child: int) -> Iterator[Tried | None]:
    """What comes through the pipe; None, once, when nothing has come for too long, however busy the machine is."""
    held, since, waited = b"", 0.0, 0.0
    while True:
        if not select.select([pipe], [], [], HANG_SECONDS)[0]:
            waited += HANG_SECONDS
            if _computed(child) - since > HANG_SECONDS or waited > 20 * HANG_SECONDS:
                yield None
                return
            continue
        since, waited = _computed(child), 0.0
        piece = os.read(pipe, 65536)
        if not piece:
            return
        *whole, held = (held + piece).split(b"\n")
        for line in whole:
            yield Tried(**json.loads(line))


def _computed(process: int) -> float:
    """Seconds that a process has computed for."""
    try:
        times = psutil.Process(process).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _try_all(files: list[Good], seeds: list[int], pipe: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GUARD_BYTES, GUARD_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=SCRATCH if SCRATCH.is_dir() else None) as folder:
        for seed in seeds:
            good, mutation, data = mutate(files, seed)
            tried = Tried(seed, good, mutation, "started")
            _tell(pipe, tried)
            path = Path(folder) / good
            path.write_bytes(data)
            before = _memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            started = time.process_time()  # not the clock's: a busy machine makes no file slow
            tried.outcome, tried.detail = _try(path)
            tried.seconds = round(time.process_time() - started, 4)
            tried.memory_bytes = max(0, _memory("VmHWM") - before)
            _tell(pipe, tried)


def _try(path: Path) -> tuple[str, str]:
    try:
        open_and_read(path)
    except SourceError as error:
        return ("refused", "") if str(error).isprintable() else ("message of several lines", repr(str(error)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 (whatever else it is, that is what this looks for)
        return "traceback", traceback.format_exc()
    return "read", ""


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def _tell(pipe: int, tried: Tried) -> None:
    os.write(pipe, (json.dumps(asdict(tried)) + "\n").encode())


def good_files(folder: Path, data: Path | None) -> list[Good]:
    paths = list(write_good_files(folder))
    return [Good.read(path) for path in (*paths, *(real_files(data) if data and data.is_dir() else []))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="mutations to try")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed; the others follow")
    parser.add_argument("--data", type=Path, default=DATA, help="a folder of further good images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = good_files(Path(folder), arguments.data)
        report = fuzz(files, range(arguments.seed, arguments.seed + arguments.count))
    for mutation, outcomes in sorted(report.by_mutation.items()):
        _say(f"{mutation:22} {dict(outcomes)}")
    _say(f"{arguments.count} mutations of {len(files)} files, seeds from {arguments.seed}: {dict(report.outcomes)}")
    _say(f"at most {report.seconds:.2f} s and {report.memory_bytes / 2**20:.0f} MiB for one file")
    for tried in report.failures[:50]:
        _say(f"FAILED seed {tried.seed} ({tried.mutation} of {tried.good}): {tried.outcome} {tried.detail}")
    sys.exit(1 if report.failures else 0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
