"""Squares of tissue: counting by squares gives what counting pixel by pixel gives."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tiling.geometry import Halo, OutputGrid
from tiling.plan import TilePlan
from tiling.selection.squares import Squares


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(2), Fraction(1, 4)])
@pytest.mark.parametrize("core_px", [96, 256, 640])
def test_pixels_in_squares_without_tissue_are_counted_as_one_by_one(scale: Fraction, core_px: int) -> None:
    grid = OutputGrid((scale, scale))
    plan = TilePlan((1700, 1301), core_px, (8, 8), Halo(16, 16, 16, 16), grid)
    random = np.random.default_rng(core_px)
    for share in (0.0, 0.4, 1.0):
        squares = Squares(random.random((7, 6)) < share, 256)
        one_by_one = [int(np.count_nonzero(~squares.inside(tile, plan))) for tile in plan.tiles()]
        assert squares.bare_pixels(range(plan.count), plan) == sum(one_by_one)
        for index in (plan.count - 1, 0, plan.count // 2):
            assert squares.bare_pixels([index], plan) == one_by_one[index]
    assert squares.bare_pixels([], plan) == 0
