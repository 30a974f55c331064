"""Coarse view of an image's data: its pixels and its no-data mask, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.selection.part_map import LEAST_PIXELS, PART_PIXELS, PartMap
from tiling.sources.downsample import Readable, block_mean, parts_of_means, read_area

if TYPE_CHECKING:
    from tiling.source import ImageSource
    from tiling.sources.facts import Level

COARSE_PX = 16
"""Side of a block, in pixels of the level."""


def coarse_data(source: ImageSource, level: int, elsewhere: PartMap | None = None) -> NDArray[np.bool_]:
    """Mask of the data in a coarse view."""
    means = coarse_means(source, level, _Data, elsewhere)[..., 0]
    # What didn't decode may be data: its tiles are tried, and fail with their reason.
    return (means > 0) | np.isnan(means)


def coarse_means(
    source: ImageSource, level: int, of: Callable[[ImageSource], Readable], elsewhere: PartMap | None = None
) -> NDArray[np.float32]:
    """Means of the blocks of a level, of the pixels or of what `of` makes of them; read elsewhere where that pays."""
    readable = of(source)
    if elsewhere is None or read_area(readable, level, COARSE_PX) < LEAST_PIXELS:
        return block_mean(readable, level, COARSE_PX)
    whole = source.levels[level]
    shape = -(-whole.height // COARSE_PX), -(-whole.width // COARSE_PX), len(readable.bands)
    means = np.empty(shape, np.float32)
    parts = parts_of_means(readable, level, COARSE_PX, PART_PIXELS)
    for top, found in elsewhere(_PartMeans(level, of), parts):
        means[top : top + len(found)] = found
    return means


@dataclass(frozen=True, slots=True)
class _PartMeans:
    """Means of the blocks of a part of a level, with the row of its first."""

    level: int
    of: Callable[[ImageSource], Readable]

    def __call__(self, source: ImageSource, part: Box) -> tuple[int, NDArray[np.float32]]:
        return part.y0 // COARSE_PX, block_mean(self.of(source), self.level, COARSE_PX, part=part)


def as_stored(source: ImageSource) -> Readable:
    """An image's pixels, whether they are data or not."""
    return source


@dataclass(frozen=True, slots=True)
class _OnLevels:
    """Another image on the levels of one."""

    source: ImageSource

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.source.levels


class _Data(_OnLevels):
    """Mask of an image's data as an image: 255 there, 0 elsewhere."""

    @property
    def bands(self) -> tuple[str, ...]:
        return ("data",)

    def read(self, level: int, box: Box) -> NDArray[np.generic]:
        held = self.source.read_present(level, box)[1]
        whole = np.ones(box.shape, np.bool_) if held is None else np.asarray(held.any(axis=-1))
        return whole[..., np.newaxis] * np.uint8(255)


class DataOnly(_OnLevels):
    """An image's pixels as floats, those without data being no numbers."""

    @property
    def bands(self) -> tuple[str, ...]:
        return self.source.bands

    def read(self, level: int, box: Box) -> NDArray[np.generic]:
        pixels, held = self.source.read_present(level, box)
        return pixels if held is None else np.where(held, pixels.astype(np.float32), np.float32(np.nan))
