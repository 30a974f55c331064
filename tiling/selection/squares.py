"""Squares of a level in which tissue was found: what is looked for in them alone doesn't depend on cores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.plan import Tile, TilePlan
from tiling.selection.level_pixels import level_pixels

SQUARE_PX = 512
"""Side of a square, in pixels of the level: the core of a run that measures none."""

_Counts = npt.NDArray[np.int64]
_Pixel = TypeVar("_Pixel", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """Squares on a grid from the level's corner. Whatever a network finds in one that isn't kept is background.

    Attributes:
        kept: `(row, column)`: whether a square holds tissue, or lies beside some.
        side_px: of a square.
    """

    kept: npt.NDArray[np.bool_]
    side_px: int = SQUARE_PX

    def meet(self, box: Box) -> bool:
        """True if a box of the level shares a pixel with a square that is kept."""
        return bool(self.kept[self._under(box)].any())

    def cover(self, box: Box) -> bool:
        """True if all squares under a box of the level are kept."""
        return bool(self.kept[self._under(box)].all())

    def cut_by(self, plan: TilePlan) -> npt.NDArray[np.bool_]:
        """Flags by tile: whether some square under its core isn't kept."""
        sums = np.pad(np.cumsum(np.cumsum(~self.kept, 0, np.int64), 1), ((1, 0), (1, 0)))
        (top, bottom), (left, right) = (
            (starts // self.side_px, -(-np.minimum(starts + plan.core_px, extent) // self.side_px))
            for starts, extent in zip((np.arange(each) * plan.core_px for each in plan.shape), plan.extent, strict=True)
        )
        down = sums[bottom] - sums[top]
        return (down[:, right] - down[:, left] > 0).reshape(-1)

    def left_out(self) -> list[Box]:
        """The squares that aren't kept; those at the level's far edges reach beyond it."""
        side, places = self.side_px, np.argwhere(~self.kept).tolist()
        return [Box(row * side, col * side, (row + 1) * side, (col + 1) * side) for row, col in places]

    def inside(self, tile: Tile, plan: TilePlan) -> npt.NDArray[np.bool_]:
        """Mask of the pixels `(y, x)` of a tile's valid region that lie in squares that are kept."""
        rows, cols = level_pixels(tile, plan)
        return self.kept[np.ix_(rows // self.side_px, cols // self.side_px)]

    def bare_pixels(self, indices: Iterable[int], plan: TilePlan) -> int:
        """Number of the pixels of tiles' valid regions that lie in squares that aren't kept.

        Counted square by square: a row of tiles has the same rows of squares, and as many of its pixels in each.
        """
        bare, found = ~self.kept, 0
        down, across = dict[int, tuple[slice, _Counts]](), dict[int, tuple[slice, _Counts]]()
        for tile in map(plan.tile, indices):
            if tile.row not in down or tile.col not in across:
                rows, cols = level_pixels(tile, plan)
                down[tile.row], across[tile.col] = self._counts(rows), self._counts(cols)
            (under_rows, tall), (under_cols, wide) = down[tile.row], across[tile.col]
            found += int(tall @ bare[under_rows, under_cols] @ wide)
        return found

    def _counts(self, pixels: _Counts) -> tuple[slice, _Counts]:
        """The squares along one side in which pixels of the level lie, and how many in each."""
        first = int(pixels[0]) // self.side_px
        counts = np.bincount(pixels // self.side_px - first)
        return slice(first, first + len(counts)), counts

    def cut(self, pixels: npt.NDArray[_Pixel], tile: Tile, plan: TilePlan) -> npt.NDArray[_Pixel]:
        """`(…, y, x)` of a tile's valid region with background in squares that aren't kept."""
        if self.cover(tile.core):
            return pixels
        return np.where(self.inside(tile, plan), pixels, pixels.dtype.type(0))

    def _under(self, box: Box) -> tuple[slice, slice]:
        side = self.side_px
        return slice(box.y0 // side, -(-box.y1 // side)), slice(box.x0 // side, -(-box.x1 // side))
