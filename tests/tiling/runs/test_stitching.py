"""The mask: whole shards, a majority pyramid, valid metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiling.geometry import Halo, PixelSize
from tiling.plan import TilePlan
from tiling.runs.label_counts import label_counts
from tiling.runs.mask import Mask, majority
from tiling.runs.ome_metadata import LabelClass
from tiling.runs.pyramid import level_shapes

CLASSES = [LabelClass("background", "#000000"), LabelClass("nucleus", "#e69f00")]


def make_mask(folder: Path, extent: tuple[int, int] = (1000, 700), core_px: int = 128) -> tuple[Mask, TilePlan]:
    plan = TilePlan(extent, core_px, (16, 16), Halo(32, 32, 32, 32))
    return Mask.create(folder / "mask.ome.zarr", plan, CLASSES, PixelSize(0.5, 0.5, "um")), plan


def shard_files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("c/*/*")) if f.is_file()}


def majority_by_counting(labels: np.ndarray) -> np.ndarray:
    height, width = labels.shape
    padded = np.pad(labels, ((0, height % 2), (0, width % 2)), mode="edge")
    result = np.empty((padded.shape[0] // 2, padded.shape[1] // 2), np.uint8)
    for y, x in np.ndindex(*result.shape):
        values = padded[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
        result[y, x] = max(values, key=lambda v: (values.count(v), v if v != 255 else -1))
    return result


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))
)
def test_majority_equals_counting(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(majority(labels), majority_by_counting(labels))


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1)))
def test_majority_of_two_labels_equals_counting(labels: np.ndarray) -> None:
    expected = majority_by_counting(labels)
    np.testing.assert_array_equal(majority(labels), expected)
    np.testing.assert_array_equal(majority(np.asfortranarray(labels)), expected)
    inside = np.pad(labels, 1, constant_values=3)[1:-1, 1:-1]
    np.testing.assert_array_equal(majority(inside), expected)
    assert majority(labels).dtype == np.uint8


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=4), elements=st.sampled_from([0, 1, 2, 255]))
)
def test_majority_inside_of_areas_equals_counting(labels: np.ndarray) -> None:
    areas = np.kron(labels, np.ones((17, 23), np.uint8))
    np.testing.assert_array_equal(majority(areas), majority_by_counting(areas))


@given(hnp.arrays(np.uint8, st.integers(0, 40), elements=st.integers(0, 255) | st.sampled_from([0, 1, 5, 6, 255])))
def test_labels_are_counted_as_bincount_does(labels: np.ndarray) -> None:
    few = np.where(labels > 6, labels % 6, labels).astype(np.uint8)
    for each in (labels, few):
        np.testing.assert_array_equal(label_counts(each), np.bincount(each, minlength=256))


def test_pixels_that_no_tile_wrote_are_not_predicted(tmp_path: Path) -> None:
    mask, plan = make_mask(tmp_path)
    mask.fill(plan.tile(0), 0)
    assert (mask.read(plan.tile(0).valid) == 0).all()
    assert (mask.read(plan.tile(1).valid) == 255).all()


def test_each_tile_writes_one_file_and_no_other(tmp_path: Path) -> None:
    mask, plan = make_mask(tmp_path)
    rng = np.random.default_rng(0)
    for tile in plan.tiles():
        before = shard_files(tmp_path)
        mask.write(tile, rng.integers(0, 2, tile.valid.shape).astype(np.uint8))
        after = shard_files(tmp_path)
        assert set(after) - set(before) == {f"mask.ome.zarr/0/c/{tile.row}/{tile.col}"}
        assert all(after[name] == data for name, data in before.items())


def test_shards_are_what_zarr_itself_would_write(tmp_path: Path) -> None:
    import zarr

    mask, plan = make_mask(tmp_path / "ours", (300, 333), 128)
    theirs, _ = make_mask(tmp_path / "theirs", (300, 333), 128)
    array = zarr.open_array(theirs.path / "0", mode="r+")
    rng = np.random.default_rng(2)
    for tile in plan.tiles():
        labels = (rng.random(tile.valid.shape) < 0.1).astype(np.uint8) if tile.index else np.zeros((128, 128), np.uint8)
        mask.write(tile, labels)
        array[tile.valid.slices] = labels
    assert shard_files(tmp_path / "ours") == shard_files(tmp_path / "theirs")


def test_a_damaged_shard_is_replaced_without_being_read(tmp_path: Path) -> None:
    mask, plan = make_mask(tmp_path)
    tile = plan.at(1, 1)
    mask.fill(tile, 1)
    before = shard_files(tmp_path)
    (mask.path / "0/c/1/1").write_bytes(b"rotten" * 9)
    mask.fill(tile, 1)
    assert shard_files(tmp_path) == before


def test_a_failed_tile_leaves_no_labels_behind(tmp_path: Path) -> None:
    mask, plan = make_mask(tmp_path)
    mask.fill(plan.at(1, 1), 1)
    mask.fill(plan.at(1, 1), 255)
    assert (mask.read(plan.at(1, 1).valid) == 255).all()
    assert not (mask.path / "0/c/1/1").exists()


def test_pyramid_of_every_level_is_the_majority_of_the_finer_one(tmp_path: Path) -> None:
    mask, plan = make_mask(tmp_path, (1301, 1033))
    rng = np.random.default_rng(1)
    for tile in plan.tiles():
        mask.write(tile, rng.integers(0, 3, tile.valid.shape).astype(np.uint8))
    mask.build_pyramid()
    assert [level.shape for level in mask.levels] == level_shapes(plan.extent) == [(1301, 1033), (651, 517), (326, 259)]
    for finer, coarser in zip(mask.levels, mask.levels[1:], strict=False):
        np.testing.assert_array_equal(coarser[:], majority(np.asarray(finer[:])))


def test_rebuilding_above_one_tile_leaves_every_other_file_alone(tmp_path: Path) -> None:
    mask, plan = make_mask(tmp_path, (1301, 1033))
    for tile in plan.tiles():
        mask.fill(tile, 0)
    mask.build_pyramid()
    before = shard_files(tmp_path)
    tile = plan.at(3, 4)
    mask.fill(tile, 1)
    mask.build_pyramid([tile.valid])
    after = shard_files(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"mask.ome.zarr/0/c/3/4", "mask.ome.zarr/1/c/1/2", "mask.ome.zarr/2/c/0/1"}
    for finer, coarser in zip(mask.levels, mask.levels[1:], strict=False):
        np.testing.assert_array_equal(coarser[:], majority(np.asarray(finer[:])))


def test_metadata_passes_a_public_validator(tmp_path: Path) -> None:
    validator = pytest.importorskip("ome_zarr_models.v05", reason="ome-zarr-models has no release for this Python")
    mask, _ = make_mask(tmp_path)
    import zarr

    image = validator.ImageLabel.from_zarr(zarr.open_group(mask.path, mode="r"))
    assert [p.label_value for p in image.attributes.ome.image_label.properties] == [0, 1, 255]
