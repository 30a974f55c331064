"""Free memory of this process: what is free on the machine, or less where a control group limits it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
_UNLIMITED_BYTES = 2**60
"""What version 1 writes where there is no limit is close to 2**63."""


def free_memory_bytes(groups: Path = GROUPS, membership: Path = MEMBERSHIP) -> int:
    """The least of what the machine and each control group that this process is in have left.

    Containers, Slurm and systemd limit memory so, and end what takes more; the machine's own figures don't show it.
    What a group's files in memory take, the system gives back, and so it counts as free.
    """
    return max(0, min([psutil.virtual_memory().available, *_left(groups, membership)]))


def _left(groups: Path, membership: Path) -> Iterator[int]:
    for folder, version in _folders(groups, membership):
        limit = "memory.max" if version == 2 else "memory.limit_in_bytes"
        used = "memory.current" if version == 2 else "memory.usage_in_bytes"
        files = "inactive_file" if version == 2 else "total_inactive_file"
        most, taken = _number(folder / limit), _number(folder / used)
        if most is not None and taken is not None and most < _UNLIMITED_BYTES:
            yield most - max(0, taken - _stated(folder / "memory.stat", files))


def _folders(groups: Path, membership: Path) -> Iterator[tuple[Path, int]]:
    """The groups' folders with their version, from the innermost up: each one's limit holds for all below."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        root = groups / "memory" if version == 1 else groups
        parts = [part for part in path.split("/") if part and part != ".."]
        # A container may see its own group as the root, while the path still is the host's.
        for end in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:end]), version


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or `max`
        return None


def _stated(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
