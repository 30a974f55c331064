"""Verification finds what time and people do to a finished run, and rerun repairs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli import Cli, mask_files, on_disk, write_tissue
from oracle import segment_here

from flows.config.run import VerifyConfig
from flows.run.steps import stitch
from flows.run.verification import mark_differing, sample_seams, shifted
from flows.run.verification_report import report
from flows.worker.tile_worker import TileWorker
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from tiling.runs.verification import check_pyramid, check_shards


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 x 5 tiles, one of them skipped."""
    folder = tmp_path_factory.mktemp("sound")
    run = segment_here(write_tissue(folder / "tissue.tif", 700, 600), folder / "run", 128)
    for tile in run.plan.tiles():
        labels = run.open_mask().read(tile.valid)
        digest = run.open_mask().write(tile, labels)
        run.ledger.append(TileRecord(tile.index, TileState.DONE, 1, digest))
    skipped = run.plan.at(5, 4)
    run.ledger.append(TileRecord(skipped.index, TileState.SKIPPED, digest=run.open_mask().fill(skipped, 0)))
    run.ledger.flush()
    stitch(run)
    return on_disk(run.path)


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(sound, tmp_path / "run"))


def faults(run: Run) -> dict[str, str]:
    return {run.plan.tile(f.tile).name: f.fault for f in check_shards(run) if f.fault is not None}


def shard(run: Run, row: int, col: int, level: int = 0) -> Path:
    return on_disk(run.mask_path) / str(level) / "c" / str(row) / str(col)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_sound_run_has_no_faults(copy: Run) -> None:
    assert faults(copy) == {}
    assert list(check_pyramid(copy)) == []


def test_bit_rot_lost_files_and_foreign_labels_are_found(copy: Run) -> None:
    flip_a_bit(shard(copy, 1, 1))
    shard(copy, 2, 2).unlink()
    shard(copy, 3, 3).write_bytes(b"")
    shutil.copy(shard(copy, 0, 1), shard(copy, 0, 0))
    found = faults(copy)
    assert sorted(found) == ["0,0", "1,1", "2,2", "3,3"]
    assert "can't be read" in found["1,1"]
    assert found["2,2"] == "its shard is missing or empty"
    assert found["0,0"] == "its labels are not those it wrote"


@pytest.mark.parametrize("byte", range(0, 400, 7))
def test_no_flipped_bit_changes_a_label_unnoticed(copy: Run, byte: int) -> None:
    path, tile = shard(copy, 1, 2), copy.plan.at(1, 2)
    labels = copy.open_mask().read(tile.valid)
    data = bytearray(path.read_bytes())
    data[byte * len(data) // 400] ^= 1 << (byte % 8)
    path.write_bytes(data)
    if not faults(copy):  # a bit that no decoder looks at
        np.testing.assert_array_equal(copy.open_mask().read(tile.valid), labels)
    else:
        assert list(faults(copy)) == ["1,2"]


def test_a_failed_tile_must_hold_not_predicted(copy: Run) -> None:
    copy.ledger.append(TileRecord(7, TileState.FAILED, reason="can't be decoded"))
    copy.ledger.flush()
    assert list(faults(copy)) == ["1,2"]
    copy.open_mask().fill(copy.plan.tile(7), 255)
    assert faults(copy) == {}


def test_a_pyramid_that_shows_something_else_is_found(copy: Run) -> None:
    flip_a_bit(shard(copy, 0, 1, level=1))
    ((level, box),) = check_pyramid(copy)
    assert (level, box.y0, box.x0) == (1, 0, 128)


def test_seams_are_covered_by_cores_of_another_size(sound: Path) -> None:
    run = Run.open(sound)
    places = sample_seams(run, run.ledger.fold(), VerifyConfig(run=sound, seams=100))
    assert len(places) > 20
    worker = TileWorker()
    checked = [worker.check(run.path, core_px, index) for core_px, index in places[::5]]
    assert shifted(run.plan).core_px == 96
    assert sum(each.differing for each in checked) == 0
    assert all(each.pixels > 0 for each in checked)


def test_a_wrong_label_at_a_seam_is_counted(copy: Run) -> None:
    tile = copy.plan.at(1, 1)
    labels = copy.open_mask().read(tile.valid)
    labels[:, -1] ^= 1
    copy.open_mask().write(tile, labels)
    found = TileWorker().check(copy.path, 128, tile.index)
    assert found.differing == 128


def test_what_a_new_computation_gives_otherwise_is_marked(copy: Run) -> None:
    """Wrong labels whose digest the ledger has: nothing but computing them again can tell."""
    tile = copy.plan.at(1, 1)
    wrong = copy.open_mask().write(tile, copy.open_mask().read(tile.valid) ^ np.uint8(1))
    copy.ledger.append(TileRecord(tile.index, TileState.DONE, 1, wrong))
    copy.ledger.flush()
    assert faults(copy) == {}
    found = [TileWorker().check(copy.path, 128, index) for index in (0, tile.index)]
    state = copy.ledger.fold(held=True)
    mark_differing(copy, state, found)
    assert list(copy.ledger.fold().damaged) == [tile.index]
    verdict = report(copy, state, [], [], found, [], started=0.0)
    assert "labels in" in verdict.damaged["1,1"]
    assert "differ when computed again" in verdict.damaged["1,1"]
    assert not verdict.is_sound


def test_an_unfinished_run_is_not_sound(copy: Run) -> None:
    for segment in sorted((on_disk(copy.path) / "ledger").glob("*.jsonl")):
        segment.unlink()
    verdict = report(copy, copy.ledger.fold(), started=0.0)
    assert not verdict.is_sound
    assert "30 tiles are not done; run the overtile segment command" in verdict.unfinished


def test_no_lock_is_left_where_no_run_is(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    image = write_tissue(tmp_path / "tissue.tif", 64, 64)
    for arguments in (
        ("verify", tmp_path / "nope"),
        ("rerun", tmp_path / "nope", "--failed"),
        ("verify", tmp_path / "foreign"),
        ("segment", image, "--out", tmp_path / "foreign"),
    ):
        ended = cli.run(*arguments)
        assert ended.code == 2, ended.err
    assert not (tmp_path / "nope").exists()
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_verify_and_rerun_mend_a_run_to_the_last_byte(cli: Cli, copy: Run) -> None:
    before = mask_files(on_disk(copy.path))
    flip_a_bit(shard(copy, 1, 1))
    flip_a_bit(shard(copy, 0, 1, level=1))
    skipped = copy.plan.at(5, 4)
    copy.open_mask().fill(skipped, 1)
    verified = cli.run("verify", copy.path, "--workers", 1)
    assert verified.code == 3, verified.err
    assert "NOT sound: 30 shards looked at, 2 damaged" in verified.out
    assert "tile 1,1: its shard can't be read" in verified.out
    assert json.loads((copy.path / "verification.json").read_bytes())["sound"] is False
    status = cli.run("status", copy.path)
    assert "28 done, 1 skipped, 0 failed, 1 damaged" in status.out
    repaired = cli.run("rerun", copy.path, "--damaged", "--workers", 1)
    assert repaired.code == 0, repaired.err
    assert mask_files(on_disk(copy.path)) == before
    again = cli.run("verify", copy.path, "--workers", 1)
    assert again.code == 0, again.out
    assert "sound: 30 shards looked at, 0 damaged" in again.out
    assert np.count_nonzero(Run.open(copy.path).ledger.fold().states == TileState.DAMAGED) == 0
