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
from tiling.runs.pyramid import create_levels
from tiling.runs.pyramid_metadata import PyramidMetadata, damaged_metadata, is_made
from tiling.runs.run_image import RunImage
from tiling.storage.place import write_atomic
from tiling.storage.shard import ShardCodec
from tiling.storage.zarr_nodes import read_list, write_list

if TYPE_CHECKING:
    from tiling.runs.run import Run

CLASS, PIXELS = "object_class", "object_pixels"
"""Arrays beside the levels, with an entry for each number from 0."""

ZSTD = 1
"""The level of compression: numbers of objects come in long stretches."""

Numbers = NDArray[np.int32]


class ObjectImage(RunImage):
    """The numbers of a run's objects, sharded as its mask is; 0 is no object."""

    what = "objects"
    synced = False

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
            group.attrs["overtile"] = cast("Any", {"classes": names, "label of each": CLASS, "pixels of each": PIXELS})
            return object_metadata(levels, pixel_size, plan.grid, corner_px)

        return PyramidMetadata(describe)

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectImage.open, (self.path,)

    @property
    def shape(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self.pyramid.levels[0].shape)

    @property
    def grid(self) -> BlockGrid:
        """Blocks of whole shards, to work through the image in."""
        return BlockGrid.of(self.shape, self._shard)

    @property
    def count(self) -> int:
        return self.classes.size - 1

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """The label of each object by its number; of 0, which is none, 0."""
        return cast("NDArray[np.uint8]", self._array(CLASS))

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """Number of pixels of each object, by its number."""
        return cast("NDArray[np.int64]", self._array(PIXELS))

    def read(self, box: Box, level: int = 0) -> Numbers:
        return self.pyramid.read_quick(box, level)

    def blocks(self) -> Iterator[tuple[Block, Numbers]]:
        """All blocks row by row, each with its numbers."""
        return ((block, self.read(block.box)) for block in self.grid)

    def write(self, block: Block, numbers: Numbers) -> None:
        """Write a block's shards on all levels of which it has whole ones; those without an object take no file."""
        for level in range(self.levels_of_block):
            self._write(level, block, numbers[:: 2**level, :: 2**level])

    def build_rest(self) -> None:
        """Compute the levels above those."""
        self.pyramid.build(above=self.levels_of_block - 1)

    @property
    def levels_of_block(self) -> int:
        """Levels of which a block has whole shards."""
        shards = (px // each for px, each in zip(self.grid.side, self._shard, strict=True))
        return min(len(self.pyramid.levels), *(count.bit_length() for count in shards))

    def _write(self, level: int, block: Block, numbers: Numbers) -> None:
        tall, wide = self._shard
        row, col = (at // (side << level) for at, side in zip((block.box.y0, block.box.x0), (tall, wide), strict=True))
        for y in range(0, numbers.shape[0], tall):
            for x in range(0, numbers.shape[1], wide):
                encoded = self._codec.encode(numbers[y : y + tall, x : x + wide])
                if encoded is not None:
                    key = f"{level}/c/{row + y // tall}/{col + x // wide}"
                    write_atomic(self.path / key, encoded, below=self.path.parent, synced=self.synced)

    def write_list(self, objects: Objects) -> None:
        """Write what is known of each object."""
        lists: tuple[tuple[str, NDArray[Any]], ...] = ((CLASS, objects.classes), (PIXELS, objects.pixels))
        for name, values in lists:
            write_list(self.path / name, values, below=self.path.parent, synced=self.synced)

    @property
    def _shard(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self.pyramid.levels[0].shards)

    @property
    def _codec(self) -> ShardCodec:
        return ShardCodec(self._shard, cast("tuple[int, int]", self.pyramid.levels[0].chunks), np.dtype(np.int32), ZSTD)

    def _array(self, name: str) -> NDArray[Any]:
        with damaged_metadata(self.path):
            return read_list(self.path / name)


def open_objects(run: Run) -> ObjectImage | None:
    """The objects of a run as they are on disk; None where none are."""
    path = run.objects_path
    return ObjectImage.open(path, read_only=True) if is_made(path) else None
