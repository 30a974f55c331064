"""An image and its mask as squares of a power-of-two pyramid, for a page that shows any part at any scale.

Zoom z shows one pixel for 2**z x 2**z pixels of the level that was segmented; where the mask is finer than that
level, it has negative zooms too. A square has `SQUARE_PX` pixels on each side, fewer at the image's end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.errors import PlanError
from tiling.geometry import Box
from tiling.runs.no_data import NO_DATA
from tiling.sources.downsample import block_mean, display_range, screen_factor, to_display

if TYPE_CHECKING:
    from tiling.plan import TilePlan
    from tiling.runs.pyramid import Pyramid
    from tiling.source import ImageSource

SQUARE_PX = 512
MISSING = 128
"""Shade of what the image holds and doesn't decode."""


@dataclass(frozen=True, slots=True)
class ZoomGrid:
    """Grid of squares.

    Attributes:
        extent: height and width of the level, in pixels.
        scale: mask pixels per pixel of the level, y before x.
    """

    extent: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(cls, plan: TilePlan) -> ZoomGrid:
        return cls(plan.extent, (float(plan.grid.scale[0]), float(plan.grid.scale[1])))

    @property
    def coarsest(self) -> int:
        """The zoom at which one square holds everything."""
        return max(0, math.ceil(math.log2(max(self.extent) / SQUARE_PX)))

    @property
    def finest(self) -> int:
        """The zoom at which the mask shows all that it has; at 0 the image does."""
        return -max(0, math.ceil(math.log2(max(self.scale))))

    def shape(self, zoom: int) -> tuple[int, int]:
        """Height and width of everything at a zoom, in its pixels."""
        return math.ceil(self.extent[0] / 2**zoom), math.ceil(self.extent[1] / 2**zoom)

    def square(self, zoom: int, row: int, col: int) -> Box:
        """A square's place, in pixels of its zoom.

        Raises:
            PlanError: there is no such square.
        """
        box = Box(0, 0, SQUARE_PX, SQUARE_PX).translate(row * SQUARE_PX, col * SQUARE_PX)
        box = box.intersect(Box(0, 0, *self.shape(zoom))) if self.finest <= zoom <= self.coarsest else Box(0, 0, 0, 0)
        if box.is_empty or row < 0 or col < 0:
            raise PlanError(
                f"square {row},{col} of zoom {zoom} is not in the image; zooms are {self.finest} to {self.coarsest}"
            )
        return box


class DeepImage:
    """The squares of an image's level. Safe to use from several threads."""

    def __init__(self, source: ImageSource, level: int, grid: ZoomGrid) -> None:
        self._source, self._level, self._grid = source, level, grid
        self._limits: tuple[float, float] | None = (0.0, 255.0) if source.dtype == np.uint8 else None

    def square(self, zoom: int, row: int, col: int) -> NDArray[np.uint8]:
        """A square's pixels `(y, x, 3)`; what doesn't decode is gray.

        Raises:
            PlanError: there is no such square.
        """
        box = self._grid.square(zoom, row, col)
        if zoom < 0:
            raise PlanError(f"the image has no zoom {zoom}; its own pixels are zoom 0")
        # The last row and column may be missing in a coarse level: then the ones before stand in for them.
        above, before = min(1, box.y0), min(1, box.x0)
        part = box.expand(above, 0, before, 0).scaled(2**zoom).intersect(Box(0, 0, *self._grid.extent))
        means = block_mean(self._source, self._level, 2**zoom, part=part)
        _repeat_last(means, 0)
        _repeat_last(means, 1)
        means = means[above:, before:]
        missing = ~np.isfinite(means[..., : min(3, means.shape[-1])]).any(axis=-1)
        shown = to_display(means, self._shown_between())
        shown[missing] = MISSING
        return shown

    def _shown_between(self) -> tuple[float, float]:
        """One range for all squares, from the image at screen size."""
        if self._limits is None:
            factor = screen_factor(self._source, self._level, self._grid.extent)
            self._limits = display_range(block_mean(self._source, self._level, factor))
        return self._limits


SHOWN_NO_DATA = 254
"""What stands for no data in what is shown, where 255 is what was not predicted; of models with fewer classes."""


class Numbered(Protocol):
    """An image with a number for each pixel, by levels: a mask, or a run's numbered objects."""

    pyramid: Pyramid

    def read(self, box: Box, level: int = 0) -> NDArray[Any]:
        """A box of a level."""
        ...


class DeepMask:
    """The squares of a mask or of numbered objects, in the place of the image's."""

    def __init__(self, mask: Numbered, grid: ZoomGrid) -> None:
        self._mask, self._grid = mask, grid

    def square(
        self, zoom: int, row: int, col: int, *, margin: int = 0, known: NDArray[np.bool_] | None = None
    ) -> NDArray[Any]:
        """A square's labels `(y, x)`, with `margin` pixels around it; beyond the mask's edge the last is repeated.

        `known` says of each tile of the grid whether what it doesn't label is no data, which is `SHOWN_NO_DATA` then.

        Raises:
            PlanError: there is no such square.
        """
        box = self._grid.square(zoom, row, col)
        finer = min(self._grid.scale) * 2.0**zoom
        level = max(0, min(len(self._mask.pyramid.levels) - 1, math.floor(math.log2(max(1.0, finer)))))
        height, width = (int(side) for side in self._mask.pyramid.levels[level].shape)
        (scale_y, scale_x), size = self._grid.scale, 2.0 ** (zoom - level)
        rows = _sampled(box.y0 - margin, box.y1 + margin, scale_y * size, height)
        cols = _sampled(box.x0 - margin, box.x1 + margin, scale_x * size, width)
        held = self._mask.read(Box(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1), level)
        labels = held[np.ix_(rows - rows[0], cols - cols[0])]
        if known is not None:
            tall, wide = (
                int(side) for side in self._mask.pyramid.levels[0].shards or self._mask.pyramid.levels[0].chunks
            )
            tiles = known[np.ix_(rows * 2**level // tall, cols * 2**level // wide)]
            labels = np.where(tiles & (labels == NO_DATA), np.uint8(SHOWN_NO_DATA), labels)
        return labels

    def label_at(self, y: float, x: float, known: NDArray[np.bool_] | None = None) -> int | None:
        """The label under a point of the level; None outside. `known` is as for `square`."""
        if not (0 <= y < self._grid.extent[0] and 0 <= x < self._grid.extent[1]):
            return None
        row, col = int(y * self._grid.scale[0]), int(x * self._grid.scale[1])
        label = int(self._mask.read(Box(row, col, row + 1, col + 1))[0, 0])
        tall, wide = (int(side) for side in self._mask.pyramid.levels[0].shards or self._mask.pyramid.levels[0].chunks)
        return SHOWN_NO_DATA if label == NO_DATA and known is not None and known[row // tall, col // wide] else label


def _sampled(start: int, stop: int, step: float, length: int) -> NDArray[np.int64]:
    """The pixels under the centres of others that are `step` times as long."""
    return np.clip(((np.arange(start, stop) + 0.5) * step).astype(np.int64), 0, length - 1)


def _repeat_last(means: NDArray[np.float32], axis: Literal[0, 1]) -> None:
    """Slides' coarse levels leave out the last pixels that are no whole square."""
    along = means if axis == 0 else means.swapaxes(0, 1)
    if len(along) > 1 and np.isnan(along[-1]).all():
        along[-1] = along[-2]
