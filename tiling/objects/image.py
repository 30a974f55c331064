"""The objects of a run as an image, `objects.ome.zarr`: int32 numbers in OME-Zarr 0.5, with a class for each number.

Specification: https://ngff.openmicroscopy.org/0.5/ (image-label metadata).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from tiling.geometry import Box, PixelSize
from tiling.objects.blocks import Block, BlockGrid
from tiling.objects.find import Objects
from tiling.plan import TilePlan
from tiling.runs.ome_metadata import LabelClass, object_metadata
from tiling.runs.pyramid import PyramidMetadata, create_levels, damaged_metadata, is_made
from tiling.runs.run_image import RunImage
from tiling.storage.zarr_store import zarr_at

if TYPE_CHECKING:
    from tiling.runs.run import Run

CLASS, PIXELS = "object_class", "object_pixels"
"""Arrays beside the levels, with an entry for each number from 0."""

Numbers = NDArray[np.int32]


class ObjectImage(RunImage):
    """The numbers of a run's objects, sharded as its mask is; 0 is no object."""

    what = "objects"

    @staticmethod
    def halve(pixels: Numbers) -> Numbers:
        return pixels[::2, ::2]

    @staticmethod
    def metadata(
        plan: TilePlan, classes: Sequence[LabelClass], pixel_size: PixelSize | None, corner_px: tuple[float, float]
    ) -> PyramidMetadata:
        def describe(group: zarr.Group) -> dict[str, Any]:
            levels = create_levels(group, plan, 0, dtype="int32")
            names = {label: {"name": item.name, "color": item.color} for label, item in enumerate(classes) if label}
            group.attrs["overtile"] = {"classes": names, "class of each object": CLASS, "its pixels": PIXELS}
            return object_metadata(levels, pixel_size, plan.grid, corner_px)

        return PyramidMetadata(describe)

    @property
    def shape(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self.pyramid.levels[0].shape)

    @property
    def grid(self) -> BlockGrid:
        """Blocks of whole shards, to work through the image in."""
        return BlockGrid.of(self.shape, cast("tuple[int, int]", self.pyramid.levels[0].shards))

    @property
    def count(self) -> int:
        return self.classes.size - 1

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """The label of each object by its number; of 0, which is none, 0."""
        return cast("NDArray[np.uint8]", self._array(CLASS))

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """How many pixels each object has, by its number."""
        return cast("NDArray[np.int64]", self._array(PIXELS))

    def read(self, box: Box, level: int = 0) -> Numbers:
        return self.pyramid.read(box, level)

    def blocks(self) -> Iterator[tuple[Block, Numbers]]:
        """All blocks row by row, each with its numbers."""
        return ((block, self.read(block.box)) for block in self.grid)

    def write(self, block: Block, numbers: Numbers) -> None:
        """Write a block's shards; those without an object take no file."""
        for shard in self._shards_of(block):
            self.pyramid.write(0, shard, numbers[shard.relative_to(block.box).slices])

    def write_list(self, objects: Objects) -> None:
        """Write what is known of each object."""
        for name, values in ((CLASS, objects.classes), (PIXELS, objects.pixels)):
            zarr.save_array(zarr_at(self.path / name), values, zarr_format=3)

    def _array(self, name: str) -> NDArray[Any]:
        with damaged_metadata(self.path):
            return np.asarray(zarr.open_array(zarr_at(self.path / name), mode="r", zarr_format=3)[:])

    def _shards_of(self, block: Block) -> Iterator[Box]:
        tall, wide = cast("tuple[int, int]", self.pyramid.levels[0].shards)
        for y in range(block.box.y0, block.box.y1, tall):
            for x in range(block.box.x0, block.box.x1, wide):
                yield Box(y, x, y + tall, x + wide).intersect(block.box)


def open_objects(run: Run) -> ObjectImage | None:
    """The objects of a run as they are on disk; None where none are."""
    path = run.objects_path
    return ObjectImage.open(path, read_only=True) if is_made(path) else None
