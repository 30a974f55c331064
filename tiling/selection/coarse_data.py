"""Coarse view of an image's data: its pixels and its no-data mask, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.sources.downsample import block_mean

if TYPE_CHECKING:
    from tiling.source import ImageSource
    from tiling.sources.facts import Level

COARSE_PX = 16
"""Side of a block, in pixels of the level."""


def coarse_data(source: ImageSource, level: int) -> NDArray[np.bool_]:
    """Mask of the data in a coarse view."""
    means = block_mean(_Data(source), level, COARSE_PX)[..., 0]
    # What didn't decode may be data: its tiles are tried, and fail with their reason.
    return (means > 0) | np.isnan(means)


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
