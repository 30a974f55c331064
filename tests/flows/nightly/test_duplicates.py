"""Slides of one content that are new in one night: one run, whatever comes of the first."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from cli import Cli
from faulty_actors import plan_fault
from nights import QUICK, assert_done, carry, context_of, expect_own_masks, hold, records
from tiny import write_noise

from flows.lifecycle.stopping import StopRequest
from flows.nightly.slide_job import SlideJob
from flows.pool.pool import Pool
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import DiskError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two contents of 3 x 3 tiles under two names each, and one of its own between them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, seed in (("a.tif", 0), ("c.tif", 1), ("d.tif", 2)):
        write_noise(folder / name, 192, 192, seed=seed)
    for name, original in (("b.tif", "a.tif"), ("e.tif", "d.tif")):
        shutil.copy(folder / original, folder / name)
    return folder


def runs(source: Path) -> set[str]:
    return {path.parent.name for path in (source.parent / "out").glob("slides/*/run.json")}


def of_state(known: dict[str, SlideRecord], state: SlideState) -> set[str]:
    return {name for name, record in known.items() if record.state is state}


def test_one_content_is_computed_once_a_night(source: Path, model: Path, pool: Pool) -> None:
    """Which of two that are planned side by side is the first isn't set."""
    tiles, known = carry(context_of(source, model, pool))
    done, same = of_state(known, SlideState.DONE), of_state(known, SlideState.SAME)
    assert done | same == set(known) == {"a.tif", "b.tif", "c.tif", "d.tif", "e.tif"}
    assert len(done) == 3
    assert done > {"c.tif"}
    assert sorted(tiles) == [(name, tile) for name in sorted(done) for tile in range(9)]
    assert runs(source) == done
    for one, other in (("a.tif", "b.tif"), ("d.tif", "e.tif")):
        first, second = (one, other) if one in done else (other, one)
        assert known[second].state is SlideState.SAME
        assert known[second].folder == known[first].folder == f"slides/{first}"
        assert (known[second].reason, known[second].pixels) == (first, 192 * 192)
    expect_own_masks(source, known)


@pytest.mark.slow
def test_where_the_first_fails_its_duplicate_is_computed(source: Path, model: Path, pool: Pool, faults: Path) -> None:
    for name in ("c.tif", "d.tif", "e.tif"):
        (source / name).unlink()
    shutil.copy(source / "a.tif", source / "c.tif")
    plan_fault(faults, "before", 4, times=3)  # the first's: none of the others is begun before that has ended
    tiles, known = carry(context_of(source, model, pool))
    ((failed,), (done,), (same,)) = (
        of_state(known, state) for state in (SlideState.FAILED, SlideState.DONE, SlideState.SAME)
    )
    assert [name for name, _ in tiles] == [failed] * 9 + [done] * 9
    assert (known[same].reason, known[same].folder) == (done, f"slides/{done}")
    assert known[failed].failed_tiles == 1
    second = hold(source, model, pool)
    assert (second[failed].state, second[failed].reason) == (SlideState.SAME, done), "by now its content is done"


def test_another_wish_is_another_run(source: Path, model: Path, pool: Pool) -> None:
    manifest = source / "list.csv"
    manifest.write_text("slide,foreground\na.tif,none\nb.tif,auto\n")
    _, known = carry(context_of(manifest, model, pool, out=source.parent / "out"))
    assert_done(known)
    assert runs(source) == {"a.tif", "b.tif"}


def test_a_duplicate_waits_for_the_next_night_where_the_first_does(source: Path, model: Path, pool: Pool) -> None:
    stop = StopRequest()

    def end_now(step: str, slide: str) -> None:
        if step == "stage":
            stop.ends_at = time.monotonic()

    _, known = carry(context_of(source, model, pool), stop, end_now)
    assert not of_state(known, SlideState.SAME)
    assert len({"a.tif", "b.tif"} & set(known)) == 1
    known = hold(source, model, pool)
    assert len(of_state(known, SlideState.SAME)) == 2
    assert len(runs(source)) == 3
    expect_own_masks(source, known)


def test_a_full_disk_ends_a_night_in_which_a_duplicate_waits(source: Path, model: Path, pool: Pool) -> None:
    context, plan, planned = context_of(source, model, pool), SlideJob.plan, list[str]()
    for number in range(20):
        write_noise(source / f"f{number}.tif", 64, 64, seed=10 + number)

    def full(job: SlideJob) -> None:
        planned.append(job.slide.name)
        if job.slide.name == "c.tif":
            raise DiskError("the disk is full: make space")
        plan(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlideJob, "plan", full)
        with pytest.raises(DiskError, match="the disk is full"):
            carry(context)
    assert len(planned) < 12, "no further slide is planned"
    known = hold(source, model, pool)
    assert len(of_state(known, SlideState.SAME)) == 2
    expect_own_masks(source, known)


@pytest.mark.slow
def test_a_night_reports_duplicates(cli: Cli, model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.tif", "b.tif"):
        write_noise(source / name, 100, 100)
    ended = cli.run("archive", source, "--out", out, "--model", model, *QUICK)
    assert ended.code == 0, ended.err
    assert "1 done, 1 with known content" in ended.out
    page = (out / "nights/latest.html").read_text()
    (same,) = (record for record in records(out).values() if record.state is SlideState.SAME)
    assert f"same content as {same.reason}" in page
    assert page.count(f"../{same.folder}/report.html") == 3, "both, and what is to look at, lead to the one run"
