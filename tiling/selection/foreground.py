"""Foreground: the tiles that hold tissue or data; the others are skipped and hold background."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tiling.geometry import Box
from tiling.plan import Tile, TilePlan
from tiling.selection.squares import SQUARE_PX, Squares
from tiling.sources.downsample import ScreenView
from tiling.storage.picture import write_png
from tiling.storage.place import Place


@dataclass(frozen=True, slots=True)
class Foreground:
    """A coarse picture of what counts as foreground, and why.

    Attributes:
        coarse: `(y, x)` bool, one value per `factor` x `factor` level pixels; None keeps every tile.
        factor: level pixels per coarse pixel along y and x.
        reason: one sentence for the run card and the person.
        held: the same for what is tissue or data itself, where `coarse` is more cautious; None where they are the same.
        data: where the coarse view shows any data; None of images that hold data everywhere.
        remark: what a person should look at; mostly empty.
        squares: outside of which nothing is looked for, so that the labels are the same for any core; None where each
            tile is judged by itself, by a mask image or by whether it holds data.
    """

    coarse: NDArray[np.bool_] | None
    factor: tuple[float, float]
    reason: str
    held: NDArray[np.bool_] | None = None
    data: NDArray[np.bool_] | None = None
    remark: str = ""
    squares: Squares | None = None

    def keeps(self, tile: Tile) -> bool:
        if self.coarse is None:
            return True
        if self.squares is not None:
            return self.squares.meet(tile.core) and not self.is_blind(tile)
        return bool(self.coarse[self._around(tile.core)].any())

    def in_squares(self, extent: tuple[int, int]) -> Foreground:
        """The same, judged by squares of a level of that height and width and not tile by tile."""
        rows, cols = (-(-side // SQUARE_PX) for side in extent)
        kept = np.array([[self._is_worth(row, col) for col in range(cols)] for row in range(rows)], np.bool_)
        return replace(self, squares=Squares(kept, SQUARE_PX))

    def _is_worth(self, row: int, col: int) -> bool:
        """True if a square has something in it or beside it; or if the coarse view shows nothing of it at all."""
        y0, x0 = row * SQUARE_PX, col * SQUARE_PX
        around = self._around(Box(y0, x0, y0 + SQUARE_PX, x0 + SQUARE_PX))
        is_seen = self.data is None or self.data[around].any()
        return self.coarse is None or not is_seen or bool(self.coarse[around].any())

    def is_blind(self, tile: Tile) -> bool:
        """True if a tile shows nothing at all in the coarse view: all that it is judged by is that it has no data."""
        return self.data is not None and not self.data[self._around(tile.core)].any()

    def _around(self, box: Box) -> tuple[slice, slice]:
        """The coarse pixels of a box, and one more on each side."""
        fy, fx = self.factor
        rows = slice(max(0, int(box.y0 / fy) - 1), int(np.ceil(box.y1 / fy)) + 1)
        return rows, slice(max(0, int(box.x0 / fx) - 1), int(np.ceil(box.x1 / fx)) + 1)

    def skipped(self, plan: TilePlan) -> list[Tile]:
        return [tile for tile in plan.tiles() if not self.keeps(tile)]

    def share(self, extent: tuple[int, int], within: NDArray[np.bool_] | None = None) -> float | None:
        """Share of a level of that height and width that is tissue or data; None where that isn't told apart.

        `within`, one value per coarse pixel, says where it counts.
        """
        held = self.held if self.held is not None else self.coarse
        if held is None:
            return None
        tall, wide = (
            np.clip(side - np.arange(count) * factor, 0, factor)
            for side, count, factor in zip(extent, held.shape, self.factor, strict=True)
        )
        counted = held if within is None else held & within
        # Not as a product of matrices: of flags it is slow, and of numbers a library's threads wait for more of them.
        return float((np.where(counted, wide, 0).sum(axis=1) * tall).sum()) / (extent[0] * extent[1])


def draw_skipped(view: ScreenView, plan: TilePlan, skipped: Iterable[Box], path: Place) -> None:
    """Write a picture of the image at screen size with what is skipped greyed and crossed."""
    picture, factor = Image.fromarray(view.picture), view.factor
    draw = ImageDraw.Draw(picture, "RGBA")
    for each in skipped:
        box = each.intersect(plan.image)
        left, top, right, bottom = (v / factor for v in (box.x0, box.y0, box.x1, box.y1))
        draw.rectangle((left, top, right - 1, bottom - 1), fill=(96, 96, 96, 140), outline=(64, 64, 64, 255))
        draw.line((left, top, right, bottom), fill=(64, 64, 64, 255))
        draw.line((left, bottom, right, top), fill=(64, 64, 64, 255))
    write_png(path, picture, below=path.parent.parent)
