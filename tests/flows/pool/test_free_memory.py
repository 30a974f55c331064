"""Memory as a container, Slurm or systemd limits it, which the machine's own figures don't show."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from flows.pool.free_memory import free_memory_bytes

MIB = 2**20


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def member(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "membership"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_version_2_the_least_of_all_groups_above_counts(tmp_path: Path) -> None:
    group(tmp_path / "slurm", memory__max=100 * MIB, memory__current=40 * MIB, memory__stat="anon 1\ninactive_file 0")
    group(tmp_path / "slurm" / "job", memory__max="max", memory__current=40 * MIB)
    membership = member(tmp_path, "0::/slurm/job")
    assert free_memory_bytes(tmp_path, membership) == 60 * MIB


def test_files_in_memory_count_as_free(tmp_path: Path) -> None:
    group(tmp_path, memory__max=100 * MIB, memory__current=90 * MIB, memory__stat=f"anon 5\ninactive_file {50 * MIB}")
    assert free_memory_bytes(tmp_path, member(tmp_path, "0::/")) == 60 * MIB


def test_version_1_beside_an_empty_version_2(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "docker" / "abc"
    group(folder, memory__limit_in_bytes=64 * MIB, memory__usage_in_bytes=4 * MIB, memory__stat="total_inactive_file 0")
    group(tmp_path / "memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5 * MIB)
    membership = member(tmp_path, "5:cpu,cpuacct:/docker/abc", "4:memory:/docker/abc", "0::/")
    assert free_memory_bytes(tmp_path, membership) == 60 * MIB


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    group(tmp_path / "memory", memory__limit_in_bytes=64 * MIB, memory__usage_in_bytes=4 * MIB)
    assert free_memory_bytes(tmp_path, member(tmp_path, "4:memory:/docker/abc")) == 60 * MIB


def test_a_group_that_has_taken_all_leaves_nothing(tmp_path: Path) -> None:
    group(tmp_path, memory__max=MIB, memory__current=2 * MIB)
    assert free_memory_bytes(tmp_path, member(tmp_path, "0::/")) == 0


@pytest.mark.parametrize("lines", [(), ("0::/",), ("nonsense",), ("4:memory:/../..",)])
def test_without_limits_it_is_the_machines(lines: tuple[str, ...], tmp_path: Path) -> None:
    free = free_memory_bytes(tmp_path, member(tmp_path, *lines))
    assert abs(free - psutil.virtual_memory().available) < 2**30
    assert free_memory_bytes(tmp_path, tmp_path / "gone") > 0
