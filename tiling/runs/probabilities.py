"""8-bit probabilities of a run's classes, one channel each: an OME-Zarr 0.5 image beside the mask, when asked for.

Where the mask says 'not predicted' or the tile was skipped as background, every channel is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tiling.geometry import Box, PixelSize
from tiling.plan import Tile, TilePlan
from tiling.runs.ome_metadata import LabelClass, probability_metadata
from tiling.runs.pyramid import Pyramid, PyramidMetadata, create_levels, open_group, pixel_digest
from tiling.storage.place import Place


class Probabilities:
    """The probability image of a run, sharded as its mask is, once per class."""

    def __init__(self, path: Place, group: zarr.Group) -> None:
        self.path = path
        self.pyramid = Pyramid(path, group, mean)

    @classmethod
    def create(
        cls,
        path: Place,
        plan: TilePlan,
        classes: Sequence[LabelClass],
        pixel_size: PixelSize | None,
        on_missing: Callable[[Probabilities], None] | None = None,
        corner_px: tuple[float, float] = (0, 0),
    ) -> Probabilities:
        """Make the image, all 0; open it where it is there already. `on_missing` is as for the mask.

        `pixel_size` is the segmented image's.
        """
        blueprint = cls.metadata(plan, classes, pixel_size, corner_px)
        blueprint.complete(path, lambda group: on_missing(cls(path, group)) if on_missing is not None else None)
        return cls.open(path)

    @staticmethod
    def metadata(
        plan: TilePlan, classes: Sequence[LabelClass], pixel_size: PixelSize | None, corner_px: tuple[float, float]
    ) -> PyramidMetadata:
        """The metadata as it has to be."""

        def describe(group: zarr.Group) -> dict[str, Any]:
            levels = create_levels(group, plan, 0, channels=len(classes))
            return probability_metadata(levels, classes, pixel_size, plan.grid, corner_px)

        return PyramidMetadata(describe)

    @classmethod
    def open(cls, path: Place, *, read_only: bool = False) -> Probabilities:
        return cls(path, open_group(path, "probabilities", read_only=read_only))

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

    def sweep(self) -> None:
        """Remove what writers that were killed have left; only when none writes."""
        self.pyramid.sweep()

    def build_pyramid(self, changed: Iterable[Box] | None = None) -> None:
        """Compute the coarser levels from level 0; with `changed`, only the shards above those boxes."""
        self.pyramid.build(changed)


def mean(probabilities: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve `(class, y, x)`: the mean of 2 x 2 pixels, rounded to nearest; odd sides count their last pixels twice."""
    height, width = probabilities.shape[-2:]
    padded = np.pad(probabilities, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    total = padded[:, ::2, ::2] + padded[:, 1::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
