"""Cores that this process may use: of those it is bound to, as many as its control group's quota lets it have."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Physical cores among the processors that this process is bound to, at most its quota; at least one."""
    return max(1, math.floor(min(_physical(os.sched_getaffinity(0)), _own_quota())))


def usable_threads() -> int:
    """The same, with each hyperthread counted."""
    return max(1, math.floor(min(len(os.sched_getaffinity(0)), _own_quota())))


@cache
def _own_quota() -> float:
    """Quota of this process, read once: an archive asks several times for each image."""
    return quota()


def quota(groups: Path = _CGROUPS, own: Path = _OWN) -> float:
    """Processors' worth of time that the narrowest control group above this process gives it; inf without a limit."""
    return min(_quotas(groups, own), default=math.inf)


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    for line in _read(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from (_of_version_2(folder) for folder in _upwards(groups, path))
        elif "cpu" in controllers.split(","):
            for mount in (groups / controllers, groups / "cpu"):
                yield from (_of_version_1(folder) for folder in _upwards(mount, path))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it. In a container the path may be the host's: the mount is its own group."""
    inside = PurePosixPath(path.lstrip("/"))
    if ".." not in inside.parts:
        for each in (inside, *inside.parents):
            yield mount / each
    else:
        yield mount


def _of_version_2(folder: Path) -> float:
    limit, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return _share(limit, period)


def _of_version_1(folder: Path) -> float:
    return _share(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _share(limit: str, period: str) -> float:
    if not (limit.isdecimal() and period.isdecimal() and int(limit) and int(period)):
        return math.inf  # "max", -1, or no such file
    return int(limit) / int(period)


def _physical(processors: set[int]) -> int:
    """Number of cores that these processors are on; each counts where the machine doesn't say."""
    siblings = (_read(_TOPOLOGY / f"cpu{each}/topology/thread_siblings_list").strip() for each in processors)
    return len({core or str(each) for each, core in zip(processors, siblings, strict=True)})


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
