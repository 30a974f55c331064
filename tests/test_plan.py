"""The plan: cores partition, reads lie on the stride grid, every shard has one writer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.errors import PlanError
from tiling.geometry import Box, Halo
from tiling.plan import TileMemory, TilePlan


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    stride_y, stride_x = draw(st.sampled_from([(1, 1), (2, 2), (8, 8), (16, 16), (4, 8)]))
    core = draw(st.integers(1, 8)) * max(stride_y, stride_x)
    extent = (draw(st.integers(1, 200)), draw(st.integers(1, 200)))
    sides = [draw(st.integers(0, 60)) for _ in range(4)]
    return TilePlan(extent, core, (stride_y, stride_x), Halo(*sides))


@given(plans())
def test_valid_regions_partition_the_extent(plan: TilePlan) -> None:
    written = np.zeros(plan.extent, np.uint8)
    for tile in plan.tiles():
        written[tile.valid.slices] += 1
    assert (written == 1).all()


@given(plans())
def test_every_shard_has_one_writer(plan: TilePlan) -> None:
    shards = {(tile.valid.y0 // plan.core_px, tile.valid.x0 // plan.core_px) for tile in plan.tiles()}
    assert len(shards) == plan.count
    for tile in plan.tiles():
        assert (tile.valid.y1 - 1) // plan.core_px == tile.valid.y0 // plan.core_px
        assert (tile.valid.x1 - 1) // plan.core_px == tile.valid.x0 // plan.core_px


@given(plans())
def test_reads_have_one_shape_and_lie_on_the_stride_grid(plan: TilePlan) -> None:
    padded = Box(0, 0, *plan.padded)
    for tile in plan.tiles():
        assert tile.read.shape == plan.read_shape
        assert tile.read.y0 % plan.stride[0] == 0
        assert tile.read.x0 % plan.stride[1] == 0
        assert padded.contains(tile.read)


@given(plans())
def test_reads_hold_the_halo_wherever_the_image_goes_on(plan: TilePlan) -> None:
    padded = Box(0, 0, *plan.padded)
    halo = plan.halo
    for tile in plan.tiles():
        needed = tile.valid.expand(halo.top, halo.bottom, halo.left, halo.right).intersect(padded)
        assert tile.read.contains(needed)
        edges = plan.edges(tile)
        assert edges.top == (tile.read.y0 == 0)
        assert edges.right == (tile.read.x1 == padded.x1)


@given(plans(), st.data())
def test_touching_names_the_tiles_that_meet_a_box(plan: TilePlan, data: st.DataObject) -> None:
    y0, x0 = data.draw(st.integers(0, 210)), data.draw(st.integers(0, 210))
    box = Box(y0, x0, y0 + data.draw(st.integers(0, 90)), x0 + data.draw(st.integers(0, 90)))
    expected = [t.index for t in plan.tiles() if not t.valid.intersect(box).is_empty]
    assert plan.touching(box) == expected


def test_a_core_off_the_stride_grid_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(PlanError, match=r"core 500 px is not a multiple .* stride 16 px.*use 496 px"):
        TilePlan((1000, 1000), 500, (16, 16), Halo(94, 94, 94, 94))


def test_an_empty_extent_is_refused() -> None:
    with pytest.raises(PlanError, match="0 px holds nothing"):
        TilePlan((0, 10), 16, (1, 1), Halo(0, 0, 0, 0))


def test_a_tile_outside_the_plan_is_named() -> None:
    plan = TilePlan((100, 100), 64, (16, 16), Halo(1, 1, 1, 1))
    with pytest.raises(PlanError, match=r"tile 2,0 is not in the plan; give a row from 0 to 1"):
        plan.at(2, 0)


def test_memory_that_cannot_fit_is_refused_up_front() -> None:
    plan = TilePlan((9000, 9000), 4096, (16, 16), Halo(94, 94, 94, 94))
    memory = TileMemory(tile_bytes=100, activation_bytes=2**33, in_flight=2, fixed_bytes=2**28)
    memory.check(workers=1, available_bytes=2**34, plan=plan)
    with pytest.raises(PlanError, match=r"need 16\.5 GiB and 16\.0 GiB are available.*core below 4096 px"):
        memory.check(workers=2, available_bytes=2**34, plan=plan)
