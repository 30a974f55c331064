"""8-bit probabilities of a run's classes, one channel each: an OME-Zarr 0.5 image beside the mask, when asked for.

Where the mask says 'not predicted' or the tile was skipped as background, every channel is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tiling.geometry import Box, PixelSize
from tiling.plan import Tile, TilePlan
from tiling.runs.ome_metadata import LabelClass, probability_metadata
from tiling.runs.pyramid import create_levels, pixel_digest
from tiling.runs.pyramid_metadata import PyramidMetadata
from tiling.runs.run_image import RunImage


class Probabilities(RunImage):
    """The probability image of a run, sharded as its mask is, once per class."""

    what = "probabilities"

    @staticmethod
    def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return mean(pixels)

    @staticmethod
    def metadata(
        plan: TilePlan, classes: Sequence[LabelClass], pixel_size: PixelSize | None, corner_px: tuple[float, float]
    ) -> PyramidMetadata:
        def describe(group: zarr.Group) -> dict[str, Any]:
            levels = create_levels(group, plan, 0, channels=len(classes))
            return probability_metadata(levels, classes, pixel_size, plan.grid, corner_px)

        return PyramidMetadata(describe)

    def write(self, tile: Tile, probabilities: NDArray[np.uint8]) -> str:
        """Write a tile's valid region, `(class, y, x)`, as one whole shard per class; gives their digest."""
        if probabilities.shape[1:] != tile.valid.shape:
            raise AssertionError(f"tile {tile.name}: {probabilities.shape} for a valid region {tile.valid.shape}")
        self.pyramid.write(0, tile.valid, probabilities)
        return pixel_digest(probabilities)

    def clear(self, tile: Tile) -> None:
        """Write 0 over a tile's whole valid region."""
        channels = self.pyramid.levels[0].shape[0]
        self.write(tile, np.zeros((channels, *tile.valid.shape), np.uint8))

    def read(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """`(class, y, x)` of a box."""
        return self.pyramid.read(box, level)


def mean(probabilities: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve `(class, y, x)`: the mean of 2 x 2 pixels, rounded to nearest; odd sides count their last pixels twice."""
    height, width = probabilities.shape[-2:]
    padded = np.pad(probabilities, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    total = padded[:, ::2, ::2] + padded[:, 1::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
