"""Reduced levels that tiles bring along: the bytes of a pyramid that is built afterwards, whatever is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiling.geometry import Halo, PixelSize
from tiling.plan import TilePlan
from tiling.runs.mask import Mask
from tiling.runs.ome_metadata import LabelClass
from tiling.runs.reduced_levels import ReducedLevels

CLASSES = [LabelClass("background", "#000000"), LabelClass("nucleus", "#e69f00"), LabelClass("gland", "#56b4e9")]


def make_mask(folder: Path, extent: tuple[int, int], core_px: int) -> tuple[Mask, TilePlan]:
    plan = TilePlan(extent, core_px, (16, 16), Halo(32, 32, 32, 32))
    return Mask.create(folder / "mask.ome.zarr", plan, CLASSES, PixelSize(0.5, 0.5, "um")), plan


def blobs(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Areas, thin lines, single pixels and parts that are not predicted."""
    random = np.random.default_rng(7)
    coarse = random.integers(0, 3, (-(-shape[0] // 37), -(-shape[1] // 41)), np.uint8)
    labels = np.kron(coarse, np.ones((37, 41), np.uint8))[: shape[0], : shape[1]].copy()
    labels[random.random(shape) < 0.02] = 1
    labels[100:140] = 255
    return labels


def files(mask: Mask) -> dict[str, bytes]:
    folder = Path(str(mask.path))
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def walked(
    mask: Mask,
    plan: TilePlan,
    order: Iterable[int],
    skipped: Collection[int] = (),
    lost: Collection[int] = (),
    most_held_bytes: int = 2**26,
) -> ReducedLevels:
    """Write tiles as workers do, and record them as a driver does; what `lost` tiles made of it is lost."""
    labels, flags = blobs(plan.mask.shape), np.zeros(plan.count, np.bool_)
    for index in skipped:
        flags[index] = True
        mask.fill(plan.tile(index), 0)
    reduced = ReducedLevels(plan, mask, flags, most_held_bytes=most_held_bytes)
    for index in order:
        tile = plan.tile(index)
        if index not in skipped:
            part = np.ascontiguousarray(labels[tile.valid.slices])
            mask.write(tile, part)
            if index not in lost:
                reduced.add(tile, mask.pyramid.reduced_chunks(part, mask.pyramid.whole_levels))
    reduced.close()
    return reduced


def count_of_written(mask: Mask, reduced: ReducedLevels) -> list[int]:
    levels = range(1, len(mask.levels))
    return [sum(reduced.is_written(level, box) for box in mask.pyramid.shards(level)) for level in levels]


@pytest.mark.parametrize(
    ("extent", "core_px", "written"),
    [
        ((1100, 1411), 512, [4, 0]),  # level 1 in whole chunks, with odd edges
        ((2048, 3000), 1024, [2, 1, 0]),
        ((5000, 1030), 1024, [3, 2, 0, 0]),  # the last column is 6 px wide
        ((700, 900), 1024, [1]),  # one tile
        ((1000, 700), 384, [2]),  # chunks of 192 px
        ((800, 900), 768, [0]),  # three chunks to a side, of which a half is no whole one
        ((600, 500), 128, [0]),  # one chunk to a tile
    ],
)
def test_joined_levels_are_byte_for_byte_those_built_afterwards(
    tmp_path: Path, extent: tuple[int, int], core_px: int, written: list[int]
) -> None:
    plain, plan = make_mask(tmp_path / "plain", extent, core_px)
    walked(plain, plan, range(plan.count))
    plain.build_pyramid()
    mask, plan = make_mask(tmp_path / "joined", extent, core_px)
    reduced = walked(mask, plan, np.random.default_rng(1).permutation(plan.count).tolist())
    assert mask.pyramid.whole_levels == sum(1 for each in written if each)
    assert count_of_written(mask, reduced)[: len(written)] == written
    mask.build_pyramid(None, reduced.is_written)
    assert files(mask) == files(plain)


@pytest.mark.parametrize(
    "missing",
    [
        {"skipped": {0, 1, 5, 6, 7, 8}},
        {"lost": {4}},  # done by an earlier driver, or failed
        {"skipped": {2, 3}, "lost": {0, 7}},
        {"most_held_bytes": 20_000},  # memory for two tiles or so
        {"skipped": set(range(12))},
    ],
)
def test_what_is_missing_is_built_afterwards_with_the_same_bytes(tmp_path: Path, missing: dict[str, set[int]]) -> None:
    skipped = missing.get("skipped", set())
    plain, plan = make_mask(tmp_path / "plain", (1500, 2040), 512)
    walked(plain, plan, range(plan.count), skipped)
    plain.build_pyramid()
    mask, plan = make_mask(tmp_path / "joined", (1500, 2040), 512)
    reduced = walked(mask, plan, range(plan.count), **missing)  # pyright: ignore[reportArgumentType]
    mask.build_pyramid(None, reduced.is_written)
    assert files(mask) == files(plain)
    assert count_of_written(mask, reduced)[0] < 4 or "lost" not in missing


def test_a_shard_that_the_disk_refuses_is_built_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask, plan = make_mask(tmp_path, (1024, 1024), 512)

    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(mask.pyramid, "write_joined", refused)
        reduced = walked(mask, plan, range(plan.count))
    assert count_of_written(mask, reduced) == [0]
    mask.build_pyramid(None, reduced.is_written)
    assert mask.pyramid.shows_below(1, mask.pyramid.shards(1)[0])
