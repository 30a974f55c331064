"""Cores that a process may use: bound to some, and with a quota of each version of control groups."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.pool.cores import quota, usable_cores, usable_threads


def test_a_process_bound_to_one_processor_counts_one() -> None:
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}})\n"
        "from flows.pool.cores import usable_cores, usable_threads\nprint(usable_cores(), usable_threads())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert output.stdout.split() == ["1", "1"]


def test_there_is_at_least_one_and_no_more_than_there_are() -> None:
    assert 1 <= usable_cores() <= usable_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({"cpu.max": "max 100000"}, "0::/", math.inf),
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "400000 100000", "a/cpu.max": "max 100000", "a/b/cpu.max": "200000 100000"}, "0::/a/b", 2),
        ({"cpu.max": "100000 100000", "a/cpu.max": "200000 100000"}, "0::/a", 1),
        ({"cpu.max": "300000 100000"}, "0::/docker/of/the/host", 3),
        ({"cpu.max": "300000 100000"}, "0::/../outside", 3),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/",
            math.inf,
        ),
        ({"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a", 0.5),
        ({"cpu.max": "what"}, "0::/", math.inf),
        ({}, "", math.inf),
    ],
)
def test_the_narrowest_quota_counts(files: dict[str, str], own: str, expected: float, tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    groups.mkdir()
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert quota(groups, tmp_path / "own") == expected
