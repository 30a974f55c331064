"""Nights over an archive as a person holds them: mixed slides, a second night, a kill in the middle, the clock."""

from __future__ import annotations

import csv
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from cli import Cli, mask_files
from growing import growing
from nights import QUICK, latest, records
from tiny import save_tiny, write_noise
from waiting import wait_for_tiles

from tiling.archives.slide_record import SlideState
from tiling.runs.run import Run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def first_night(cli: Cli, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """An archive with all that goes wrong in one, and what its first night said."""
    folder = tmp_path_factory.mktemp("archive")
    source, out = folder / "in", folder / "out"
    (source / "sub").mkdir(parents=True)
    for number in range(4):
        write_noise(source / f"sub/{number}.tif", 150 + 64 * number, 200, seed=number)
    write_noise(source / "name\x1b[31m.tif", 100, 100, seed=9)
    whole = (source / "sub/0.tif").read_bytes()
    (source / "corrupt.tif").write_bytes(whole[: len(whole) // 3])
    (source / "outside.svs").symlink_to(model / "model.json")
    (source / "growing.tif").write_bytes(whole)
    with growing(source / "growing.tif"):
        ended = cli.run("archive", source, "--out", out, "--model", model, *QUICK)
    assert ended.code == 3, ended.err
    return source, out, ended.out


def test_one_bad_slide_never_stops_the_others(first_night: tuple[Path, Path, str]) -> None:
    source, out, output = first_night
    known = records(out)
    good = [f"sub/{number}.tif" for number in range(4)]
    assert all(known[name].state is SlideState.DONE for name in (*good, "name\x1b[31m.tif"))
    for name in good:
        run = Run.open(out / "slides" / name)
        assert run.card.image.path == str(source / name)
        labels = run.open_mask().levels[0][:]
        assert set(np.unique(np.asarray(labels))) == {0, 1, 2}
        assert (out / "slides" / name / "overlay.png").is_file()
        assert not (out / "slides" / name / "staged.zarr").exists()
    assert known["corrupt.tif"].state is SlideState.FAILED
    assert known["growing.tif"].state is SlideState.CHANGING
    assert "corrupt.tif: " in output
    assert "outside.svs: a symbolic link to a file outside the archive" in output
    assert "growing.tif: it is still being written" in output
    assert "name\\x1b[31m.tif" in (out / "nights/latest.html").read_text()
    assert "\x1b" not in output + (out / "nights/latest.html").read_text() + (out / "slides.csv").read_text()
    assert (out / "slides" / "name%1B[31m.tif" / "run.json").is_file()
    assert "another try would end alike for corrupt.tif: repair or replace the file" in output
    assert "rerun" not in output, "it is advised only where it can help"
    assert "sub/3.tif: done, " in output, "off a terminal each slide is a line"


def test_a_table_and_a_page_tell_of_the_night(first_night: tuple[Path, Path, str]) -> None:
    _, out, _ = first_night
    (table,) = out.glob("nights/2*.csv")
    rows = {row["slide"]: row for row in csv.DictReader(table.open())}
    assert rows["sub/3.tif"]["state"] == "done"
    assert float(rows["sub/3.tif"]["megapixels"]) == pytest.approx(342 * 200 / 1e6, abs=1e-3)
    assert rows["outside.svs"]["state"] == "refused"
    facts = latest(out)
    assert facts["complete"] is False
    assert facts["pixels"] == sum(record.pixels for record in records(out).values() if record.state == "done")


def test_the_second_night_does_only_what_is_new(cli: Cli, model: Path, first_night: tuple[Path, Path, str]) -> None:
    source, out, _ = first_night
    before = {name: mask_files(out / "slides" / name) for name in ("sub/0.tif", "sub/2.tif")}
    times = {path: path.stat().st_mtime_ns for path in (out / "slides").rglob("*") if path.is_file()}
    os.utime(source / "sub/2.tif")  # touched: another time, the same content
    write_noise(source / "sub/3.tif", 342, 200, seed=33)  # another content under the same name
    write_noise(source / "growing.tif", 150, 200, seed=40)  # whole by now
    write_noise(source / "new.tif", 90, 90, seed=41)
    (source / "duplicate.tif").write_bytes((source / "sub/1.tif").read_bytes())  # a known content under another name
    known = records(out)
    ended = cli.run("archive", source, "--out", out, "--model", model, *QUICK)
    assert ended.code == 0, "the corrupt one and the link have made a night red already"
    assert "2 known to fail" in ended.out
    night = str(latest(out)["name"])
    tonight = {name: record for name, record in records(out).items() if record.night == night}
    assert {name: record.state.value for name, record in tonight.items()} == {
        "sub/2.tif": "done",
        "sub/3.tif": "done",
        "growing.tif": "done",
        "new.tif": "done",
        "duplicate.tif": "same",
    }
    assert tonight["duplicate.tif"].folder == "slides/sub/1.tif"
    assert "unchanged" in ended.out
    assert "corrupt.tif" in ended.out
    assert {name: mask_files(out / "slides" / name) for name in before} == before
    untouched = [path for path in times if path.exists() and "sub/3.tif" not in str(path)]
    assert all(path.stat().st_mtime_ns == times[path] for path in untouched if path.name != "driver.lock")
    (aside,) = (out / "earlier/sub/3.tif").iterdir()
    assert Run.open(aside).card.image.fingerprint == known["sub/3.tif"].fingerprint
    assert Run.open(out / "slides/sub/3.tif").card.image.fingerprint != known["sub/3.tif"].fingerprint


@pytest.mark.slow
def test_failed_slides_are_tried_again_when_asked(cli: Cli, first_night: tuple[Path, Path, str]) -> None:
    _, out, _ = first_night
    ended = cli.run("rerun", "--archive", out, "--failed")
    assert ended.code == 3
    assert [name for name, record in records(out).items() if record.night == latest(out)["name"]] == ["corrupt.tif"]


@pytest.mark.slow
def test_a_wrong_source_leaves_no_archive_behind(cli: Cli, model: Path, tmp_path: Path) -> None:
    """Its card would refuse the right command, where that has other options."""
    (tmp_path / "empty").mkdir()
    for source, problem in (("nope", "an archive is a folder"), ("empty", "holds no image")):
        ended = cli.run("archive", tmp_path / source, "--out", tmp_path / "out", "--model", model, *QUICK)
        assert ended.code == 2, ended.err
        assert problem in ended.err
        assert not (tmp_path / "out").exists()


@pytest.mark.soak
def test_a_night_that_is_killed_goes_on_where_it_was(cli: Cli, model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(5):
        write_noise(source / f"{number}.tif", 640, 640, seed=number)
    command = ("archive", source, "--model", model, *QUICK, "--out")
    driver = cli.start(*command, out)
    wait_for_tiles(out, 140)
    driver.send_signal(signal.SIGKILL)
    driver.wait(60)
    before = tiles_of(out)
    assert 100 < len(before) < 500
    resumed = cli.run(*command, out)
    assert resumed.code == 0, resumed.err
    tiles = tiles_of(out)
    assert len(tiles) == len(set(tiles)) == 500, "every tile of every slide is in a ledger once"
    assert {record.state for record in records(out).values()} == {SlideState.DONE}


def tiles_of(out: Path) -> list[tuple[str, int]]:
    runs = [Run.open(path.parent) for path in out.glob("slides/*/run.json")]
    return [(run.path.name, record.tile) for run in runs for record in run.ledger.records()]


@pytest.mark.soak
def test_a_night_ends_by_its_budget_and_the_next_goes_on(cli: Cli, model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(3):
        write_noise(source / f"{number}.tif", 200, 200, seed=number)
    command = ("archive", source, "--out", out, "--model", model, *QUICK)
    foreseen = cli.run(*command, "--dry-run")
    assert foreseen.code == 0, foreseen.err
    assert "to do: 3 slides, 0 MPix" in foreseen.out
    assert not out.exists()
    ended = cli.run(*command, "--budget", "1s", "--first", "2.*")
    assert ended.code == 4, ended.err
    assert "ended by its budget" in ended.out
    # How many it could plan within the budget is a matter of the machine; each is counted once, and whole.
    begun = len(re.findall(r"^[012]\.tif: begun, 16 of 16 tiles left$", ended.out, re.MULTILINE))
    assert begun == 3 or f"{3 - begun} waiting" in ended.out, ended.out
    tiles = "tiles not known yet" if begun == 0 else "about 48 tiles"
    assert re.search(rf"3 slides left( \({begun} begun\))?: {tiles}", ended.out), ended.out
    again = cli.run(*command, "--first", "2.*")
    assert again.code == 0, again.err
    assert "3 done" in again.out
    first = {name: Run.open(out / "slides" / name).ledger.fold().first_time or 0 for name in records(out)}
    assert min(first, key=lambda name: first[name]) == "2.tif"


@pytest.mark.soak
def test_slides_that_are_cut_short_or_removed_in_mid_night_are_named_and_the_others_done(
    cli: Cli, model: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(6):
        write_noise(source / f"{number}.tif", 640, 640, seed=number)
    night = cli.start("archive", source, "--out", out, "--model", model, *QUICK, log=tmp_path / "log")
    deadline = time.monotonic() + 200
    while not (out / "slides/0.tif/run.json").is_file():
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.02)
    kept = (source / "5.tif").read_bytes()
    os.truncate(source / "5.tif", 5000)
    (source / "4.tif").unlink()
    assert night.wait(240) == 0, (tmp_path / "log").read_text()  # as of slides that are still being copied
    output = (tmp_path / "log").read_text()
    assert "Traceback" not in output
    known = records(out)
    assert {name for name, record in known.items() if record.state is SlideState.DONE} == {f"{n}.tif" for n in range(4)}
    left = output.split("left to a later night:")[1].split("to look at:")[0]
    assert "5.tif: it is still being written; the next night looks again" in left
    assert "4.tif: it is no longer there; the next night looks again" in left
    (source / "5.tif").write_bytes(kept)
    again = cli.run("archive", source, "--out", out, "--model", model, *QUICK)
    assert records(out)["5.tif"].state is SlideState.DONE, again.out
    assert "4.tif" in again.out
