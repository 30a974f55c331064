"""Staged tiles never exceed the budget, whatever former nights have left and whatever fails."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from cli import Cli
from faulty_actors import FaultyActor, plan_fault
from hypothesis import given, settings
from hypothesis import strategies as st
from nights import QUICK, assert_done, carry, context_of, hold
from object_store import place, s3_server
from tiny import write_noise

from flows.lifecycle.stopping import StopRequest
from flows.nightly.context import NightContext
from flows.nightly.staged_size import tile_bytes
from flows.pool.backlog import Backlog
from flows.pool.pool import Pool
from flows.pool.staging_budget import Batch, leftover_staged_tiles
from flows.worker.result import ReadyTile, TileResult
from tiling.archives.archive import Archive
from tiling.archives.listing import find_slides
from tiling.archives.slide import Slide
from tiling.archives.slide_record import SlideState
from tiling.geometry import Halo
from tiling.plan import TilePlan
from tiling.runs.run import Run
from tiling.runs.staging import StagedTiles, staged_sizes
from tiling.storage.chunk import MOST_OVERHEAD_BYTES
from tiling.storage.place import Place

RUNS = (Path("a"), Path("b"))
TILE_BYTES = 10


@given(keeps=st.booleans(), budget=st.integers(1, 8), left=st.sets(st.integers(0, 9), max_size=8), choices=st.data())
@settings(max_examples=200, deadline=None)
def test_what_lies_there_keeps_to_the_budget_and_staging_never_stands_still(
    keeps: bool, budget: int, left: set[int], choices: st.DataObject
) -> None:
    """Any order of staging, success and failure against the disk itself: a set of tiles."""
    backlog = Backlog(6, budget * TILE_BYTES, keeps=keeps)
    disk = {(RUNS[0], tile) for tile in left}
    backlog.recount(RUNS[0], dict.fromkeys(left, TILE_BYTES))
    most = max(budget, len(disk))
    todo = [(run, tile) for run in RUNS for tile in range(10)]
    ahead: list[ReadyTile] = []
    while todo or ahead:
        at_once = backlog.at_once(2, TILE_BYTES)
        run = todo[0][0] if todo else RUNS[1]
        batch = Batch(run, [tile for each, tile in todo[:at_once] if each == run], TILE_BYTES)
        has_room = backlog.has_room(len(batch.tiles), batch)
        assert has_room or ahead, "nothing would ever make room"
        if todo and has_room and (not ahead or choices.draw(st.booleans())):
            todo = todo[len(batch.tiles) :]
            assert backlog.reserve(len(batch.tiles), batch)
            staged = backlog.take_space(batch)
            if staged:
                disk |= {(run, tile) for tile in batch.tiles}
            ahead += [ReadyTile(run, TileResult(tile, None, 0), staged=staged) for tile in batch.tiles]
        else:
            ready = ahead.pop(choices.draw(st.integers(0, len(ahead) - 1)))
            is_done = choices.draw(st.booleans())
            if is_done and ready.staged and not keeps:
                disk.discard((ready.run, ready.tile))
            backlog.tile_finished(ready, TileResult(ready.tile, "digest" if is_done else None, 0))
        assert len(disk) <= most


def test_a_tile_that_could_not_be_staged_takes_nothing() -> None:
    backlog = Backlog(8, TILE_BYTES)
    for tile in range(3):
        batch = Batch(RUNS[0], [tile], TILE_BYTES)
        assert backlog.take_space(batch)
        assert not backlog.take_space(Batch(RUNS[0], [9], TILE_BYTES))
        broken = TileResult(tile, None, 0, {}, "SourceError: can't be decoded")
        backlog.tile_finished(ReadyTile(RUNS[0], broken, staged=True), broken)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three slides of 3 x 3 tiles."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        write_noise(folder / f"{number}.tif", 192, 192, seed=number)
    return folder


def staged_of(context: NightContext) -> Mapping[Place, Mapping[int, int]]:
    return dict(leftover_staged_tiles(Archive.open(context.archive.path)))


def staged_files(out: Path) -> int:
    return len([*out.glob("slides/*/staged.zarr/c.*")])


def stop_with_staged_tiles(source: Path, model: Path, pool: Pool) -> NightContext:
    """A night that ends when its first slide is staged, none of whose tiles has been inferred: a worker hangs."""
    context = context_of(source, model, pool)
    stop = StopRequest()

    def end_now(step: str, slide: str) -> None:
        if step == "stage":
            stop.request(signal.SIGTERM, grace_seconds=0)

    carry(context, stop, end_now)
    return context


@pytest.mark.slow
def test_what_a_stopped_night_has_left_counts(source: Path, model: Path, pool: Pool, faults: Path) -> None:
    for tile in range(9):
        plan_fault(faults, "hang", tile, times=1)
    context = stop_with_staged_tiles(source, model, pool)
    for tile in range(9):
        plan_fault(faults, "hang", tile, times=0)
    (run,) = staged_of(context)
    assert isinstance(run, Path)
    before = staged_files(source.parent / "out")
    assert len(staged_of(context)[run]) == before == 9
    counts = list[int]()

    def count(step: str, slide: str) -> None:
        counts.append(staged_files(source.parent / "out"))

    budget = 9 * tile_bytes(Run.open(run))
    others = [slide for slide in slides_of(context) if slide.name != run.name]
    full = context_of(source, model, pool, staging_budget=sum(staged_of(context)[run].values()))
    _, known = carry(full, after=count, slides=others)
    assert set(counts) == {9}, "there was room for no other: they were read from the image"
    with Pool(2, actor=FaultyActor) as own:  # a pool lives one night, in which no slide comes twice
        _, known = carry(context_of(source, model, own, staging_budget=budget))
    assert_done(known)
    assert staged_files(source.parent / "out") == 0


def slides_of(context: NightContext) -> list[Slide]:
    return sorted(find_slides(context.config.source, context.config.out), key=lambda slide: slide.name)


@pytest.mark.slow
def test_what_a_slide_with_a_failed_tile_leaves_counts_where_it_is_kept(
    source: Path, model: Path, pool: Pool, faults: Path
) -> None:
    write_noise(source / "1.tif", 192, 256, seed=1)  # the only one with a twelfth tile
    plan_fault(faults, "before", 11, times=3)
    context = context_of(source, model, pool, keep_staged=True, staging_budget="1MB")
    _, known = carry(context)
    assert known["1.tif"].state is SlideState.FAILED
    assert {run.name: sorted(sizes) for run, sizes in staged_of(context).items()} == {"1.tif": [*range(12)]}


@pytest.mark.slow
def test_tiles_that_are_kept_stay_as_far_as_the_budget_goes(source: Path, model: Path, pool: Pool) -> None:
    out = source.parent / "out"
    _, known = carry(context_of(source, model, pool, keep_staged=True))
    assert_done(known)
    assert staged_files(out) == 27
    budget = 5 * tile_bytes(Run.open(out / "slides" / "0.tif"))
    shutil.rmtree(out)
    with Pool(2, actor=FaultyActor) as own:  # a pool lives one night, in which no slide comes twice
        _, known = carry(context_of(source, model, own, keep_staged=True, staging_budget=budget))
    assert_done(known)
    assert 0 < staged_files(out) <= 5, "the others were read from the images"


def test_a_slide_that_fails_as_a_whole_leaves_nothing_staged(source: Path, model: Path, pool: Pool) -> None:
    def vandalise(step: str, slide: str) -> None:
        if (step, slide) == ("plan", "2.tif"):
            shutil.rmtree(source.parent / "out/slides/2.tif/mask.ome.zarr")

    context = context_of(source, model, pool, staging_budget="1MB")
    _, known = carry(context, after=vandalise)
    assert known["2.tif"].state is SlideState.FAILED
    assert staged_files(source.parent / "out") == 0


@pytest.mark.slow
def test_a_run_that_makes_room_takes_no_staged_tiles_along(source: Path, model: Path, pool: Pool, faults: Path) -> None:
    for tile in range(9):
        plan_fault(faults, "hang", tile, times=1)
    context = stop_with_staged_tiles(source, model, pool)
    for tile in range(9):
        plan_fault(faults, "hang", tile, times=0)
    ((run, _),) = staged_of(context).items()
    write_noise(source / run.name, 192, 192, seed=77)
    with Pool(2, actor=FaultyActor) as own:
        hold(source, model, own)
    (aside,) = context.archive.earlier(f"slides/{run.name}")
    assert (aside / "run.json").is_file()
    assert not (aside / "staged.zarr").exists()


@pytest.mark.slow
def test_a_killed_night_tells_where_staged_tiles_lie(cli: Cli, model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(3):
        write_noise(source / f"{number}.tif", 1280, 1280, seed=number)
    driver = cli.start("archive", source, "--out", out, "--model", model, *QUICK)
    deadline = time.monotonic() + 120
    while not staged_files(out):
        assert time.monotonic() < deadline, "nothing was ever staged"
        assert driver.poll() is None
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(60)
    archive = Archive.open(out)
    begun = {record.slide for record in archive.ledger if record.state is SlideState.BEGUN}
    staged = {path.parents[1].name for path in out.glob("slides/*/staged.zarr/c.*")}
    assert staged <= begun
    assert len(begun) == 1


def test_a_bucket_tells_in_one_listing_what_is_staged(tmp_path: Path) -> None:
    plan = TilePlan((128, 128), 64, (2, 2), Halo(1, 1, 1, 1))
    with s3_server():
        for path in (tmp_path / "staged.zarr", place("run") / "staged.zarr"):
            assert staged_sizes(path) == {}
            staged = StagedTiles.create(path, plan, 3, "uint8")
            for tile in (0, 2, 3):
                staged.write(tile, np.full((*plan.read_shape, 3), tile, np.uint8))
            staged.discard(2)
            sizes = staged_sizes(path)
            assert set(sizes) == {0, 3}
            most = plan.read_shape[0] * plan.read_shape[1] * 3 + MOST_OVERHEAD_BYTES
            assert all(0 < size <= most for size in sizes.values())
