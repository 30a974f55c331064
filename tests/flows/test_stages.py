"""Stages of the flow called one by one, where a whole flow could not show the difference."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import zarr
from cli import on_disk, write_tissue
from finished import finished_run
from oracle import segment_here
from tiny import write_noise

from flows.run import pictures, steps
from flows.run.steps import export, stitch
from tiling.errors import DiskError, StagingError
from tiling.export.export_run import is_shown
from tiling.geometry import Box, Halo
from tiling.plan import TilePlan
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.mask import majority
from tiling.runs.run import Run
from tiling.runs.staging import MOST_SPARES, SPARES, StagedTiles, mirrored, remove_staged, shown, staged_sizes
from tiling.storage.local_disk import is_local_disk


def pyramid_is_true(run: Run) -> bool:
    levels = [np.asarray(level[:]) for level in run.open_mask().levels]
    return all(np.array_equal(coarser, majority(finer)) for finer, coarser in pairwise(levels))


def test_a_tile_written_after_stitching_reaches_the_pyramid(tmp_path: Path) -> None:
    run = segment_here(write_tissue(tmp_path / "tissue.tif", 700, 600), tmp_path / "run", 128)
    stitch(run)
    assert pyramid_is_true(run)
    tile = run.plan.at(2, 3)
    run.open_mask().fill(tile, 1)
    assert not pyramid_is_true(run)
    run.ledger.append(TileRecord(tile.index, TileState.DONE, 1, "digest"))
    run.ledger.flush()
    stitch(run)
    assert pyramid_is_true(run)
    assert (run.open_mask().read(Box(128, 192, 192, 256), 1) == 1).all()


def test_stitching_again_writes_nothing(tmp_path: Path) -> None:
    run = segment_here(write_tissue(tmp_path / "tissue.tif", 700, 600), tmp_path / "run", 128)
    stitch(run)
    before = {p: p.stat().st_mtime_ns for p in on_disk(run.path).rglob("*") if p.is_file()}
    stitch(run)
    assert {p: p.stat().st_mtime_ns for p in on_disk(run.path).rglob("*") if p.is_file()} == before


def test_a_black_tile_is_staged_as_any_other(tmp_path: Path) -> None:
    plan = TilePlan((128, 128), 64, (16, 16), Halo(0, 0, 0, 0))
    StagedTiles.create(tmp_path / "staged.zarr", plan, 3, "uint8")
    staged = StagedTiles.open(tmp_path / "staged.zarr")
    black = np.zeros((*plan.read_shape, 3), np.uint8)
    staged.write(1, black)
    np.testing.assert_array_equal(staged.read(1), black)


def test_mirrored_pixels_are_those_that_their_positions_show() -> None:
    random = np.random.default_rng(3)
    for _ in range(500):
        (height, width), (tall, wide) = random.integers(1, 20, 2), random.integers(1, 50, 2)
        top, left = random.integers(-30, 30, 2)
        pixels = random.integers(0, 255, (height, width, 2)).astype(np.uint8)
        rows, cols = mirrored(top, top + tall, height), mirrored(left, left + wide, width)
        np.testing.assert_array_equal(shown(pixels, rows, cols), pixels[np.ix_(rows, cols)])


def test_the_file_of_a_done_tile_becomes_that_of_the_next(tmp_path: Path) -> None:
    plan, path = TilePlan((1024, 64), 64, (16, 16), Halo(0, 0, 0, 0)), tmp_path / "staged.zarr"
    staged, pixels = StagedTiles.create(path, plan, 3, "uint8"), np.full((*plan.read_shape, 3), 7, np.uint8)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    (path / SPARES / f".spare.{'0' * 32}.partial").symlink_to(theirs)
    (path / SPARES / f".spare.{'1' * 32}.partial").hardlink_to(theirs)
    for index in range(8):
        staged.write(index, pixels)
    assert theirs.read_bytes() == b"theirs"
    files = {(path / f"c.{index}.0.0.0").stat().st_ino for index in range(8)}
    for index in (*range(8), 3):
        staged.discard(index)
        assert not staged.holds(index)
    assert sum(each.is_file() for each in path.rglob("*")) == 1 + MOST_SPARES
    for index in range(8, 8 + MOST_SPARES):
        staged.write(index, pixels + np.uint8(index))
        assert (path / f"c.{index}.0.0.0").stat().st_ino in files
        np.testing.assert_array_equal(staged.read(index), pixels + np.uint8(index))
    assert not [*(path / SPARES).iterdir()]


def test_a_link_in_place_of_the_folder_of_spare_files_is_not_followed(tmp_path: Path) -> None:
    plan, path, theirs = TilePlan((128, 64), 64, (16, 16), Halo(0, 0, 0, 0)), tmp_path / "staged.zarr", tmp_path / "own"
    StagedTiles.create(path, plan, 3, "uint8")
    theirs.mkdir()
    (theirs / "1").write_bytes(b"theirs")
    (path / SPARES).rmdir()
    (path / SPARES).symlink_to(theirs)
    staged = StagedTiles.open(path)
    staged.write(0, np.full((*plan.read_shape, 3), 7, np.uint8))
    staged.discard(0)
    remove_staged(path)
    assert [each.name for each in theirs.iterdir()] == ["1"]
    assert [each.name for each in path.iterdir()] == [SPARES]


def test_an_array_of_an_earlier_version_is_made_anew(tmp_path: Path) -> None:
    """Its tiles had folders of their own."""
    plan, path = TilePlan((128, 64), 64, (16, 16), Halo(0, 0, 0, 0)), tmp_path / "staged.zarr"
    pixels = np.full((*plan.read_shape, 3), 7, np.uint8)
    shape = (plan.count, *pixels.shape)
    zarr.create_array(path, shape=shape, chunks=(1, *pixels.shape), dtype="uint8", compressors=None)[1] = pixels
    assert (path / "c/1/0/0/0").is_file()
    staged = StagedTiles.create(path, plan, 3, "uint8")
    assert not staged.holds(1)
    assert sorted(each.name for each in path.iterdir()) == [SPARES, "zarr.json"]
    staged.write(1, pixels)
    np.testing.assert_array_equal(StagedTiles.open(path).read(1), pixels)
    remove_staged(path)
    assert not path.exists()


def test_a_tile_that_is_done_with_while_it_is_read_gives_no_other_ones_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, path = TilePlan((128, 128), 64, (16, 16), Halo(0, 0, 0, 0)), tmp_path / "staged.zarr"
    staged, pixels = StagedTiles.create(path, plan, 3, "uint8"), np.full((*plan.read_shape, 3), 7, np.uint8)
    staged.write(0, pixels)
    fromfile = np.fromfile

    def after_the_next(*given: Any) -> Any:
        staged.discard(0)
        staged.write(1, pixels + np.uint8(1))
        return fromfile(*given)

    monkeypatch.setattr(np, "fromfile", after_the_next)
    with pytest.raises(StagingError, match="tile 0 is not staged"):
        staged.read(0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("keep", [False, True])
def test_tiles_that_pass_this_machines_disk_are_as_they_are_and_those_that_stay_are_compressed(
    tmp_path: Path, keep: bool, dtype: str
) -> None:
    plan, path = TilePlan((128, 128), 64, (16, 16), Halo(0, 0, 0, 0)), tmp_path / "staged.zarr"
    StagedTiles.create(path, plan, 3, dtype, keep=keep).write(1, np.full((*plan.read_shape, 3), 7, dtype))
    found = StagedTiles.open(path).read(1)
    np.testing.assert_array_equal(found, np.full((*plan.read_shape, 3), 7, dtype))
    assert found.flags.writeable
    assert (staged_sizes(path)[1] == found.nbytes + 4) is not keep
    chunk = path / "c.1.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    with pytest.raises(StagingError, match="stage it again"):
        StagedTiles.open(path).read(1)


def test_tiles_across_a_network_are_compressed_and_so_are_those_of_a_file_system_that_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, (near, far) = TilePlan((128, 128), 64, (16, 16), Halo(0, 0, 0, 0)), (tmp_path / "near", tmp_path / "far")
    mounts = {"/": "ext4", str(far): "nfs4", str(far / "disk"): "xfs", str(near / "odd"): "whatever"}
    found = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounts.items()]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: found)
    (tmp_path / "link").symlink_to(far)
    for folder, is_plain in {near: True, far: False, far / "disk": True, near / "odd": False}.items():
        folder.mkdir(parents=True)
        StagedTiles.create(folder / "a", plan, 3, "uint8").write(0, np.full((*plan.read_shape, 3), 7, np.uint8))
        assert (staged_sizes(folder / "a")[0] > 64 * 64 * 3) is is_plain
    assert not is_local_disk(tmp_path / "link" / "staged.zarr")


def test_pictures_are_drawn_while_formats_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(write_noise(tmp_path / "image.tif", 300, 280), tmp_path / "run")
    both_have_begun = threading.Barrier(2, timeout=20)

    def once_both_have(work: Callable[..., Any]) -> Callable[..., Any]:
        def waited(*given: Any, **named: Any) -> Any:
            both_have_begun.wait()
            return work(*given, **named)

        return waited

    for module, name in ((pictures, "draw"), (steps, "export_all")):
        monkeypatch.setattr(module, name, once_both_have(getattr(module, name)))
    export(run, "statistics")
    assert run.overlay_path.is_file()
    assert is_shown(run, run.ledger.fold(held=True), "statistics")


def test_a_picture_that_cannot_be_written_keeps_no_format_from_being_written(tmp_path: Path) -> None:
    run = finished_run(write_noise(tmp_path / "image.tif", 300, 280), tmp_path / "run")
    on_disk(run.overlay_path / "in the way").mkdir(parents=True)
    with pytest.raises(DiskError):
        export(run, "statistics,ome-tiff")
    state = run.ledger.fold(held=True)
    assert is_shown(run, state, "statistics")
    assert is_shown(run, state, "ome-tiff")
