"""Mutated images by the hundred: each is read or refused on one line, soon and in bounded memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import Report, Tried, good_files
from mutations import MUTATIONS, Good, mutate

from tiling.source import open_source

COUNT = 300
FUZZ = Path(__file__).parents[2] / "support" / "fuzz.py"
FUZZ_THE_DEADLY = """
import os, signal, fuzz
fuzz.open_and_read = lambda path: os.kill(os.getpid(), signal.SIGKILL)
fuzz.main()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Good]:
    return good_files(tmp_path_factory.mktemp("good"), None)


def run_fuzz(*command: object, data: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it forks, and this one may have threads of Ray's and torch's by now."""
    arguments = [sys.executable, *map(str, command), "--data", str(data)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=250, check=False, cwd=FUZZ.parent)


def test_mutated_images_are_read_or_refused(tmp_path: Path) -> None:
    ended = run_fuzz(FUZZ, "--count", COUNT, data=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counted = re.search(rf"{COUNT} mutations of \d+ files.*'refused': (\d+), 'read': (\d+)", ended.stdout) or re.search(
        rf"{COUNT} mutations of \d+ files.*'read': (\d+), 'refused': (\d+)", ended.stdout
    )
    assert counted, ended.stdout
    one, other = map(int, counted.groups())
    assert one + other == COUNT
    assert min(one, other) > COUNT / 10, "mutations are neither harmless nor hopeless"
    assert all(mutation.__name__ in ended.stdout for mutation in MUTATIONS)


def test_a_file_that_kills_its_process_is_told_and_the_next_ones_are_tried(tmp_path: Path) -> None:
    ended = run_fuzz("-c", FUZZ_THE_DEADLY, "--count", 3, data=tmp_path)
    assert ended.returncode == 1
    assert "{'killed its process': 3}" in ended.stdout
    assert [f"FAILED seed {seed} (" in ended.stdout for seed in range(3)] == [True] * 3


def test_what_is_slow_or_large_is_a_failure() -> None:
    report = Report()
    report.add(Tried(1, "a", "m", "read", seconds=11.0))
    report.add(Tried(2, "a", "m", "refused", memory_bytes=2**31))
    report.add(Tried(3, "a", "m", "refused", seconds=9.0))
    assert [tried.outcome for tried in report.failures] == ["too slow", "too much memory"]


def test_every_good_file_is_good_before_it_is_mutated(files: list[Good], tmp_path: Path) -> None:
    for good in files:
        (tmp_path / good.name).write_bytes(good.data)
        with open_source(tmp_path / good.name) as source:
            source.read(0, source.levels[0].box)


def test_a_seed_names_one_mutation_for_ever(files: list[Good]) -> None:
    assert mutate(files, 7) == mutate(files, 7)
    assert mutate(files, 7) != mutate(files, 7 + len(files))
