"""Workers that are killed, hang or lag, in real processes; the mask compared byte by byte with an undisturbed one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from cli import mask_files, on_disk, write_tissue
from faulty_actors import FaultyActor, FaultyStager, ReadingStager, plan_fault

from flows.config.run import SegmentConfig
from flows.pool.backlog import Backlog
from flows.pool.pool import Pool
from flows.pool.scheduler import Limits
from flows.run.prepare import prepare
from flows.worker.result import ReadyTile, TileResult
from flows.worker.staging_worker import StagingWorker
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.runs.run import Run

Ended = dict[int, tuple[TileResult, int]]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tissue(tmp_path_factory.mktemp("image") / "tissue.tif", 384, 384)


@pytest.fixture(scope="module")
def undisturbed(image: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The mask's files of a run without any fault."""
    run = planned(image, tmp_path_factory.mktemp("undisturbed") / "run")
    worker = TileWorker()
    for tile in run.plan.tiles():
        worker.process(run.path, tile.index, staged=False)
    return stitched_files(run)


def stitched_files(run: Run) -> dict[str, bytes]:
    """The mask's files after the stage that follows inference."""
    mask = run.open_mask()
    mask.sweep()
    mask.build_pyramid()
    return mask_files(on_disk(run.path))


def planned(image: Path, folder: Path) -> Run:
    config = SegmentConfig(image=image, out=folder, core=128, foreground="none")
    return prepare(config, 2, partial(tune, device="cpu"))


def infer(run: Run, limits: Limits | None = None, *, staged: bool = False) -> Ended:
    """All tiles through the real pool, with actors that fail when they are told to."""
    if staged:
        run.create_staged()
        assert all(each.reason is None for each in StagingWorker().stage(run.path, [*range(run.plan.count)]))
    backlog = Backlog(limit=run.plan.count)
    for tile in run.plan.tiles():
        assert backlog.reserve(1)
        backlog.offer(ReadyTile(run.path, TileResult(tile.index, None, 0), staged=staged))
    backlog.close()
    with Pool(2, actor=FaultyActor, limits=limits) as pool:
        return {ended.result.tile: (ended.result, ended.attempts) for ended in pool.infer(backlog)}


@pytest.mark.parametrize(
    ("moment", "staged"),
    [
        ("during", True),
        pytest.param("before", False, marks=pytest.mark.slow),
        pytest.param("after", False, marks=pytest.mark.slow),
        pytest.param("after", True, marks=pytest.mark.slow),
    ],
)
def test_a_tile_whose_worker_is_killed_is_computed_elsewhere(
    faults: Path, image: Path, undisturbed: dict[str, bytes], tmp_path: Path, moment: str, staged: bool
) -> None:
    plan_fault(faults, moment, 4, times=1)
    run = planned(image, tmp_path / "run")
    ended = infer(run, staged=staged)
    assert sorted(ended) == list(range(9))
    assert all(result.reason is None for result, _ in ended.values())
    assert ended[4][1] == 2
    assert sum(attempts - 1 for _, attempts in ended.values()) <= 2, "its neighbour on the worker is tried again once"
    assert stitched_files(run) == undisturbed


def test_a_tile_that_kills_three_workers_is_named_and_the_others_are_done(
    faults: Path, image: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    plan_fault(faults, "before", 4, times=3)
    run = planned(image, tmp_path / "run")
    ended = infer(run)
    failed, attempts = ended.pop(4)
    assert failed.digest is None
    assert failed.reason is not None
    assert failed.reason.startswith("its worker died 3 times: The actor is dead because its worker process has died")
    assert attempts == 3
    assert all(result.reason is None for result, _ in ended.values())
    assert mask_files(on_disk(run.path)) == {
        n: d for n, d in undisturbed.items() if n != "0/c/1/1" and not n.startswith("1/c")
    }


@pytest.mark.slow
def test_tiles_that_kill_their_stagers_are_read_from_the_image(
    faults: Path, image: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    plan_fault(faults, "stage", 4, times=3)
    run = planned(image, tmp_path / "run")
    run.create_staged()
    with Pool(2, actor=FaultyActor, stager=FaultyStager) as pool, Backlog(limit=run.plan.count) as backlog:
        pool.stage(run.path, range(run.plan.count), backlog)
        backlog.close()
        ended = list(pool.infer(backlog))
    unstaged = {each.ready.tile for each in ended if not each.ready.staged}
    assert {4, 5} <= unstaged
    assert len(unstaged) <= 4, "the batch that kills, and perhaps one that died with it each time"
    assert [each.result.reason for each in ended] == [None] * run.plan.count
    assert stitched_files(run) == undisturbed


def test_nobody_is_warned_of_stagers_that_the_pool_itself_ends(
    faults: Path, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Ctrl-C ends them, while another thread waits for what they stage."""
    run, stages = planned(image, tmp_path / "run"), tmp_path / "stages"
    run.create_staged()
    script = f"import pathlib, time; pathlib.Path({str(stages)!r}).touch(); time.sleep(3600)"
    (faults / "before-stage-4.py").write_text(script)
    with ThreadPoolExecutor(1) as beside, Backlog(limit=run.plan.count) as backlog:
        with Pool(1, stager=ReadingStager) as pool:
            staging = beside.submit(pool.stage, run.path, range(run.plan.count), backlog)
            for _ in range(600):
                if not stages.exists():
                    time.sleep(0.1)
        assert staging.result(timeout=60) is None
    assert not [each for each in caplog.messages if "died" in each]


@pytest.mark.slow
def test_a_tile_that_never_ends_is_given_to_another_worker(
    faults: Path, image: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    plan_fault(faults, "hang", 2, times=1)
    run = planned(image, tmp_path / "run")
    ended = infer(run, Limits(tile_seconds=6))
    assert all(result.reason is None for result, _ in ended.values())
    assert ended[2][1] == 2
    assert stitched_files(run) == undisturbed


def test_a_straggler_is_overtaken(faults: Path, image: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    plan_fault(faults, "hang", 7, times=1)
    run = planned(image, tmp_path / "run")
    ended = infer(run, Limits(straggler_seconds=2.0))
    assert all(result.reason is None for result, _ in ended.values())
    assert ended[7][1] == 2, "two workers had it, and none died of it"
    assert stitched_files(run) == undisturbed
