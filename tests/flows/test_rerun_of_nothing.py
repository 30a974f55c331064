"""`rerun --failed` where nothing failed: an answer from the ledger, without a process or a slow library."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from cli import Cli, clean_environment
from drawn import draw_run
from nights import archive_at
from past_nights import begun

from tiling.archives.slide_record import SlideRecord, SlideState

WATCH = """
import atexit, os, sys
STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect")
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event in STARTS else None)
def write_imports():
    slow = {"ray", "prefect", "torch", "rasterio", "dask", "pandas", "shapely", "pyproj", "napari"}
    with open(os.environ["IMPORTED"], "w") as file:
        file.write(" ".join([*seen, *sorted(slow & sys.modules.keys())]))
atexit.register(write_imports)
"""
"""A process's own account of what it started and loaded, written when it ends."""

DONE = SlideRecord("a.svs", SlideState.DONE, "slides/a.svs", 10, "v1", night="n1")
LINK = replace(DONE, slide="b.svs", state=SlideState.REFUSED, reason="a symbolic link to a file outside the archive")


@pytest.fixture
def watched(tmp_path: Path) -> Cli:
    """The command, in whose process every start of another one is seen."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    seen = {"PYTHONPATH": str(tmp_path / "watch"), "IMPORTED": str(tmp_path / "imported.txt")}
    return Cli(clean_environment(tmp_path / "home", **seen))


@pytest.mark.parametrize(("slides", "said"), [([DONE], ""), ([DONE, LINK], "; 1 is not opened at all (b.svs)")])
def test_of_an_archive_nothing_is_started(watched: Cli, tmp_path: Path, slides: list[SlideRecord], said: str) -> None:
    archive = archive_at(tmp_path / "it's segmented")
    for record in slides:
        archive.ledger.append(record)
    archive.ledger.flush()
    ended = watched.run("rerun", archive.path, "--failed")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"no slide of {archive.path} stands failed: nothing to try again{said}\n"
    assert (tmp_path / "imported.txt").read_text() == ""


def test_of_a_run_nothing_is_started(watched: Cli, tmp_path: Path) -> None:
    draw_run(tmp_path / "run")
    ended = watched.run("rerun", tmp_path / "run", "--failed")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"no tile of {tmp_path / 'run'} failed: nothing to compute again\n"
    assert (tmp_path / "imported.txt").read_text() == "", "a run's card and ledger are read, and nothing is started"


def test_what_a_clock_asks_of_an_archives_nights_is_told_from_the_ledger(watched: Cli, tmp_path: Path) -> None:
    archive = archive_at(tmp_path / "segmented")
    archive.ledger.announce("night", begun(time.time())["facts"])
    ended = watched.run("doctor", "--archive", archive.path)
    assert (ended.code, ended.err) == (3, "")
    assert "its process ended without a word" in ended.out
    assert (tmp_path / "imported.txt").read_text() == ""


def test_models_are_listed_and_the_version_is_told_without_a_slow_library(watched: Cli, tmp_path: Path) -> None:
    listed = watched.run("models", "list")
    assert (listed.code, listed.err) == (0, "")
    assert "unet3p" in listed.out
    assert (tmp_path / "imported.txt").read_text() == ""
    ended = watched.run("--version")
    assert (ended.code, ended.out) == (0, f"overtile {version('overtile')}\n")
