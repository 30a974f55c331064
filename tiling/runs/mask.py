"""Valid regions become one full-resolution mask: an OME-Zarr 0.5 label image with its pyramid.

Specification: https://ngff.openmicroscopy.org/0.5/ (multiscales and image-label metadata, Zarr v3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from tiling.geometry import Box, PixelSize
from tiling.plan import Tile, TilePlan
from tiling.runs.ome_metadata import LabelClass, label_metadata
from tiling.runs.pyramid import create_levels, pixel_digest
from tiling.runs.pyramid_metadata import PyramidMetadata
from tiling.runs.run_image import RunImage

NOT_PREDICTED = 255
BACKGROUND = 0
MOST_MIXED = 0.1
"""Of the squares of a mask; where more have several classes, all are counted at once."""

Labels = NDArray[np.uint8]


class Mask(RunImage):
    """The label image of a run. Level 0 has one shard per tile, so no two tiles ever write one file."""

    what = "mask"

    @staticmethod
    def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return majority(pixels)

    @staticmethod
    def metadata(
        plan: TilePlan, classes: Sequence[LabelClass], pixel_size: PixelSize | None, corner_px: tuple[float, float]
    ) -> PyramidMetadata:
        def describe(group: zarr.Group) -> dict[str, Any]:
            levels = create_levels(group, plan, NOT_PREDICTED)
            return label_metadata(levels, classes, NOT_PREDICTED, pixel_size, plan.grid, corner_px)

        return PyramidMetadata(describe)

    @property
    def levels(self) -> list[zarr.Array[Any]]:
        return self.pyramid.levels

    @property
    def shape(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self.levels[0].shape)

    def write(self, tile: Tile, labels: Labels) -> str:
        """Write a tile's valid region as one whole shard.

        Args:
            tile: where the labels belong.
            labels: `(y, x)`, the tile's valid region.

        Returns:
            The digest of the labels.
        """
        if labels.shape != tile.valid.shape:
            raise AssertionError(f"tile {tile.name}: labels {labels.shape} for a valid region {tile.valid.shape}")
        self.pyramid.write(0, tile.valid, labels)
        return pixel_digest(labels)

    def fill(self, tile: Tile, label: int) -> str:
        """Write one label over a tile's whole valid region."""
        return self.write(tile, np.full(tile.valid.shape, label, np.uint8))

    def holds(self, tile: Tile) -> bool:
        """True if anything was written for a tile."""
        return self.pyramid.holds(0, tile.valid)

    def read(self, box: Box, level: int = 0) -> Labels:
        return self.pyramid.read(box, level)


def majority(labels: Labels) -> Labels:
    """Halve a label image: each pixel takes the label that most of its 2 x 2 pixels have.

    Ties go to the greater class, so that thin structures stay visible, and never to 'not predicted'. Odd
    sides count their last row or column twice.
    """
    height, width = labels.shape
    if height % 2 or width % 2:
        labels = np.pad(labels, ((0, height % 2), (0, width % 2)), mode="edge")
    padded = np.ascontiguousarray(labels)
    if padded.max(initial=0) <= 1:
        return _most_of_two(padded)
    # Adding one wraps 255 to 0: 'not predicted' becomes the smallest value and so loses every tie.
    four = _corners(padded + np.uint8(1))
    # Nearly all of a mask lies inside of areas; where all four agree there is nothing to count.
    mixed = np.flatnonzero((four[0] != four[1]) | (four[0] != four[2]) | (four[0] != four[3]))
    if mixed.size > four[0].size * MOST_MIXED:
        return _most_of(*four) - np.uint8(1)
    result = four[0]
    result.reshape(-1)[mixed] = _most_of(*(each.reshape(-1)[mixed] for each in four))
    return result - np.uint8(1)


def _corners(labels: Labels) -> tuple[Labels, ...]:
    """The four pixels of every square, one image of each; two side by side are read as one number of two bytes."""
    pairs = labels.view(np.uint16)
    halves = pairs.astype(np.uint8), (pairs >> 8).astype(np.uint8)
    return tuple(np.ascontiguousarray(half[row::2]) for row in (0, 1) for half in halves)


def _most_of_two(labels: Labels) -> Labels:
    """The same of labels that are 0 or 1: 1 where the four add up to 2 or more."""
    pairs = labels.view(np.uint16)
    sums = pairs[0::2] + pairs[1::2]  # of two bytes, neither of which runs over
    sums += sums >> 8
    return (sums.astype(np.uint8) > 1).view(np.uint8)


def _most_of(a: Labels, b: Labels, c: Labels, d: Labels) -> Labels:
    """The value that most of four have; of as many the greater."""
    low_1, high_1 = np.minimum(a, b), np.maximum(a, b)
    low_2, high_2 = np.minimum(c, d), np.maximum(c, d)
    least, greatest = np.minimum(low_1, low_2), np.maximum(high_1, high_2)
    middle_1, middle_2 = np.maximum(low_1, low_2), np.minimum(high_1, high_2)
    lower, upper = np.minimum(middle_1, middle_2), np.maximum(middle_1, middle_2)
    top_pair = upper == greatest
    # Two equal pairs: the upper pair is the greater class already.
    return np.where(top_pair, greatest, np.where(lower == upper, lower, np.where(least == lower, least, greatest)))
