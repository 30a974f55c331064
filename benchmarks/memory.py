"""Peak memory and processor time of a process tree, from outside.

Each process's own peak is the kernel's (VmHWM of /proc/PID/status, which no sampling can miss while the process
lives); the tree's peak is the greatest sum of proportional set sizes (PSS counts a page shared by n processes
1/n times to each) among samples.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil

KINDS = {
    "ray::TileActor": "tile actor",
    "ray::StagingActor": "stager",
    "ray::IDLE": "ray worker, idle",
    "raylet": "ray system",
    "gcs_server": "ray system",
    "ray/dashboard": "ray system",
    "ray/_private": "ray system",
    "prefect": "prefect server",
    "multiprocessing.resource_tracker": "helper",
    "multiprocessing.spawn": "child",
}


@dataclass(slots=True)
class Peaks:
    """Peaks in bytes: of the tree as a whole, and of the greatest process of each kind."""

    tree_pss: int = 0
    by_kind: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def largest(self) -> int:
        return max(self.by_kind.values(), default=0)


class Sampler:
    """Watches a process and all that it starts, from a thread, until `stop`."""

    def __init__(self, pid: int, every_seconds: float) -> None:
        self._root = psutil.Process(pid)
        self._every = every_seconds
        self._over = threading.Event()
        self._peaks = Peaks()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def seen(self) -> bool:
        """Whether there has been a sample."""
        return self._peaks.tree_pss > 0

    def stop(self) -> Peaks:
        self._over.set()
        self._thread.join()
        return self._peaks

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        total = 0
        for process in _tree(self._root):
            try:
                total += process.memory_full_info().pss
                kind, peak = kind_of(process, self._root.pid), _high_water(process.pid)
            except (psutil.Error, OSError):
                continue
            self._peaks.by_kind[kind] = max(peak, self._peaks.by_kind.get(kind, 0))
        self._peaks.tree_pss = max(self._peaks.tree_pss, total)


def cpu_seconds(pid: int) -> dict[str, float]:
    """Processor seconds that a process and all that it started have used so far, by kind."""
    root = psutil.Process(pid)
    found: dict[str, float] = {}
    for process in _tree(root):
        try:
            times = process.cpu_times()
            kind = kind_of(process, pid)
        except psutil.Error:
            continue
        found[kind] = found.get(kind, 0.0) + times.user + times.system
    return found


def kind_of(process: psutil.Process, root: int) -> str:
    """What a process is, from its command line."""
    if process.pid == root:
        return "driver"
    command = " ".join(process.cmdline())
    return next((kind for text, kind in KINDS.items() if text in command), "other")


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
