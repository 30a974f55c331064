"""The plan: cores partition, reads lie on the stride grid, every shard has one writer."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.errors import PlanError
from tiling.geometry import Box, Halo, OutputGrid
from tiling.plan import TileMemory, TilePlan
from tiling.runs.walk import in_order


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    stride_y, stride_x = draw(st.sampled_from([(1, 1), (2, 2), (8, 8), (16, 16), (4, 8)]))
    core = draw(st.integers(1, 8)) * max(stride_y, stride_x)
    most = min(200, 12 * core)  # a dozen tiles each way show all that there is
    extent = (draw(st.integers(1, most)), draw(st.integers(1, most)))
    sides = [draw(st.integers(0, 60)) for _ in range(4)]
    return TilePlan(extent, core, (stride_y, stride_x), Halo(*sides), draw(grids((stride_y, stride_x))))


@st.composite
def grids(draw: st.DrawFn, stride: tuple[int, int]) -> OutputGrid:
    """The image's own grid, as for most networks, or any that a network of that stride may have."""
    if draw(st.booleans()):
        return OutputGrid()
    scale = tuple(draw(st.sampled_from(scales(s))) for s in stride)
    top, left = (draw(st.integers(0, 4)) * s for s in stride)
    context = Halo(top, draw(st.integers(0, 40)), left, draw(st.integers(0, 40)))
    return OutputGrid((scale[0], scale[1]), (draw(st.integers(0, 30)), draw(st.integers(0, 30))), context)


def scales(stride: int) -> list[Fraction]:
    return [f for f in (Fraction(3), Fraction(3, 2), Fraction(1, 4), Fraction(1)) if stride % f.denominator == 0]


@given(plans())
def test_valid_regions_partition_the_mask(plan: TilePlan) -> None:
    height, width = (math.ceil(px * scale) for px, scale in zip(plan.extent, plan.grid.scale, strict=True))
    written = np.zeros((height, width), np.uint8)
    for tile in plan.tiles():
        written[tile.valid.slices] += 1
    assert (written == 1).all()


@given(plans())
def test_valid_regions_show_their_cores_and_no_more(plan: TilePlan) -> None:
    scale_y, scale_x = plan.grid.scale
    for tile in plan.tiles():
        assert (tile.valid.y0, tile.valid.x0) == (tile.core.y0 * scale_y, tile.core.x0 * scale_x)
        held = tile.core.intersect(plan.image)
        assert (tile.valid.y1, tile.valid.x1) == (math.ceil(held.y1 * scale_y), math.ceil(held.x1 * scale_x))


@given(plans())
def test_every_shard_has_one_writer(plan: TilePlan) -> None:
    tall, wide = plan.shard_shape
    assert len({(tile.valid.y0 // tall, tile.valid.x0 // wide) for tile in plan.tiles()}) == plan.count
    for tile in plan.tiles():
        assert (tile.valid.y1 - 1) // tall == tile.valid.y0 // tall
        assert (tile.valid.x1 - 1) // wide == tile.valid.x0 // wide
    assert (tall % plan.chunk_shape[0], wide % plan.chunk_shape[1]) == (0, 0)


@given(plans())
def test_the_frame_is_the_image_on_the_stride_grid_with_its_context(plan: TilePlan) -> None:
    (height, width), (y, x), frame, context = plan.extent, plan.stride, plan.frame, plan.grid.context
    assert (-frame.y0, -frame.x0) == (context.top, context.left)
    assert 0 <= frame.y1 - context.bottom - height < y
    assert 0 <= frame.x1 - context.right - width < x
    assert (frame.y1 - context.bottom) % y == (frame.x1 - context.right) % x == 0


@given(plans())
def test_reads_have_one_shape_and_lie_on_the_stride_grid(plan: TilePlan) -> None:
    for tile in plan.tiles():
        assert tile.read.shape == plan.read_shape
        assert tile.read.y0 % plan.stride[0] == 0
        assert tile.read.x0 % plan.stride[1] == 0
        assert plan.frame.contains(tile.read)


@given(plans(), st.integers(1, 12))
def test_what_a_tile_reads_last_no_later_one_reads(plan: TilePlan, strip: int) -> None:
    left = np.zeros(plan.extent, np.uint8)
    for index in in_order(plan, np.arange(plan.count), strip * plan.core_px):
        tile = plan.tile(index)
        assert not left[tile.read.intersect(plan.image).slices].any()
        left[plan.last_read(tile).slices] = 1


@given(plans())
def test_reads_hold_the_halo_wherever_the_frame_goes_on(plan: TilePlan) -> None:
    for tile in plan.tiles():
        needed = tile.core.intersect(plan.image).expand(*plan.halo.sides).intersect(plan.frame)
        assert tile.read.contains(needed)
        edges = plan.edges(tile)
        assert edges.top == (tile.read.y0 == plan.frame.y0)
        assert edges.right == (tile.read.x1 == plan.frame.x1)


@given(plans())
def test_what_is_needed_of_a_read_is_where_the_whole_pass_has_it(plan: TilePlan) -> None:
    """Output pixel i of a pass over a read is the mask's pixel scale * read + offset + i."""
    (scale_y, scale_x), (offset_y, offset_x) = plan.grid.scale, plan.grid.offset
    for tile in plan.tiles():
        need = plan.need(tile)
        assert need.shape == tile.valid.shape
        assert need.y0 + tile.read.y0 * scale_y + offset_y == tile.valid.y0
        assert need.x0 + tile.read.x0 * scale_x + offset_x == tile.valid.x0


@given(plans(), st.data())
def test_touching_names_the_tiles_that_meet_a_box(plan: TilePlan, data: st.DataObject) -> None:
    y0, x0 = data.draw(st.integers(0, 210)), data.draw(st.integers(0, 210))
    box = Box(y0, x0, y0 + data.draw(st.integers(0, 90)), x0 + data.draw(st.integers(0, 90)))
    expected = [t.index for t in plan.tiles() if not t.core.intersect(plan.image).intersect(box).is_empty]
    assert plan.touching(box) == expected


def test_a_core_off_the_stride_grid_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(PlanError, match=r"core 500 px is not a multiple .* stride 16 px.*use 496 px"):
        TilePlan((1000, 1000), 500, (16, 16), Halo(94, 94, 94, 94))


def test_more_tiles_than_a_driver_holds_are_refused() -> None:
    with pytest.raises(PlanError, match=r"are 1000000000000 tiles, and a driver holds 20000000 at most; use a larger"):
        TilePlan((64_000_000, 64_000_000), 64, (8, 8), Halo(8, 8, 8, 8))


def test_an_empty_extent_is_refused() -> None:
    with pytest.raises(PlanError, match="0 px holds nothing"):
        TilePlan((0, 10), 16, (1, 1), Halo(0, 0, 0, 0))


def test_a_grid_that_cores_cannot_share_out_is_refused() -> None:
    with pytest.raises(PlanError, match="scale 1/3 gives no whole number of mask pixels for the stride of 16 px"):
        TilePlan((100, 100), 64, (16, 16), Halo(0, 0, 0, 0), OutputGrid((Fraction(1, 3), Fraction(1))))
    with pytest.raises(PlanError, match="context of 92 and 92 px doesn't start on the stride grid of 16 px"):
        TilePlan((100, 100), 64, (16, 16), Halo(0, 0, 0, 0), OutputGrid(context=Halo(92, 92, 96, 92)))


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
