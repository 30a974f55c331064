"""Foreground: the tiles that hold tissue or data; the others are skipped and hold background."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tiling.plan import Tile, TilePlan
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
    """

    coarse: NDArray[np.bool_] | None
    factor: tuple[float, float]
    reason: str
    held: NDArray[np.bool_] | None = None
    data: NDArray[np.bool_] | None = None
    remark: str = ""

    def keeps(self, tile: Tile) -> bool:
        if self.coarse is None:
            return True
        return bool(self.coarse[self._around(tile)].any())

    def is_blind(self, tile: Tile) -> bool:
        """True if a tile shows nothing at all in the coarse view: all that it is judged by is that it has no data."""
        return self.data is not None and not self.data[self._around(tile)].any()

    def _around(self, tile: Tile) -> tuple[slice, slice]:
        """The coarse pixels of a tile's core, and one more on each side."""
        (fy, fx), core = self.factor, tile.core
        rows = slice(max(0, int(core.y0 / fy) - 1), int(np.ceil(core.y1 / fy)) + 1)
        return rows, slice(max(0, int(core.x0 / fx) - 1), int(np.ceil(core.x1 / fx)) + 1)

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
        return float(tall @ counted @ wide) / (extent[0] * extent[1])


def draw_skipped(view: ScreenView, plan: TilePlan, skipped: Iterable[Tile], path: Place) -> None:
    """Write a picture of the image at screen size with the skipped tiles greyed and crossed."""
    picture, factor = Image.fromarray(view.picture), view.factor
    draw = ImageDraw.Draw(picture, "RGBA")
    for tile in skipped:
        core = tile.core.intersect(plan.image)
        left, top, right, bottom = (v / factor for v in (core.x0, core.y0, core.x1, core.y1))
        draw.rectangle((left, top, right - 1, bottom - 1), fill=(96, 96, 96, 140), outline=(64, 64, 64, 255))
        draw.line((left, top, right, bottom), fill=(64, 64, 64, 255))
        draw.line((left, bottom, right, top), fill=(64, 64, 64, 255))
    write_png(path, picture, below=path.parent.parent)
