"""Valid regions become one full-resolution mask: an OME-Zarr 0.5 label image with its pyramid.

Specification: https://ngff.openmicroscopy.org/0.5/ (multiscales and image-label metadata, Zarr v3).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dask
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from tiling.errors import RunError
from tiling.geometry import Box, OutputGrid, PixelSize
from tiling.plan import Tile, TilePlan

NOT_PREDICTED = 255
BACKGROUND = 0
SMALLEST_LEVEL_PX = 512
TASKS_AT_ONCE = 1024
_OME_UNITS = {"um": "micrometer", "m": "meter"}

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LabelClass:
    """What a label means, and the colour `#rrggbb` that shows it."""

    name: str
    color: str


class Mask:
    """The label image of a run. Level 0 has one shard per tile, so no two tiles ever write one file."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._store = group.store
        self._scratch = threading.local()
        count = len(cast("dict[str, Any]", group.attrs["ome"])["multiscales"][0]["datasets"])
        self._levels = [cast("zarr.Array[Any]", group[str(level)]) for level in range(count)]

    @classmethod
    def create(cls, path: Path, plan: TilePlan, classes: Sequence[LabelClass], pixel_size: PixelSize | None) -> Mask:
        """Make the label image, with every pixel not predicted; open it where it is there already.

        `pixel_size` is the image's; the mask's follows from the plan's grid.
        """
        if (path / "zarr.json").is_file():
            return cls.open(path)
        group = zarr.open_group(path, mode="a", zarr_format=3)
        shapes = level_shapes(plan.mask.shape)
        for level, shape in enumerate(shapes):
            group.create_array(
                str(level),
                shape=shape,
                chunks=plan.chunk_shape,
                shards=plan.shard_shape,
                dtype="uint8",
                fill_value=NOT_PREDICTED,
                compressors=ZstdCodec(level=3, checksum=True),
                dimension_names=("y", "x"),
                overwrite=True,
            )
        # The metadata comes last: a folder with it holds every level.
        group.attrs["ome"] = _ome_metadata(len(shapes), classes, pixel_size, plan.grid)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Mask:
        try:
            group = zarr.open_group(path, mode="r" if read_only else "r+")
            return cls(path, group)
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise RunError(f"{path} holds no mask ({error}); run overtile segment on the image again") from error

    @property
    def levels(self) -> list[zarr.Array[Any]]:
        return self._levels

    @property
    def shape(self) -> tuple[int, int]:
        return cast("tuple[int, int]", self._levels[0].shape)

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
        self._write_shard(0, tile.valid, labels)
        return label_digest(labels)

    def fill(self, tile: Tile, label: int) -> str:
        """Write one label over a tile's whole valid region."""
        return self.write(tile, np.full(tile.valid.shape, label, np.uint8))

    def read(self, box: Box, level: int = 0) -> Labels:
        return cast("Labels", self._levels[level][box.slices])

    def sweep(self) -> None:
        """Remove what writers that were killed have left under other names than the shards'; only when none writes."""
        for partial in self.path.rglob("*.partial"):
            partial.unlink(missing_ok=True)

    def build_pyramid(self, changed: Iterable[Box] | None = None, *, threads: int = 2) -> None:
        """Compute the coarser levels from level 0; with `changed`, only the shards above those boxes."""
        for level in range(1, len(self._levels)):
            boxes = self.shards(level) if changed is None else self.shards_above(level, changed)
            for start in range(0, len(boxes), TASKS_AT_ONCE):
                tasks = [dask.delayed(self._build_shard)(level, box) for box in boxes[start : start + TASKS_AT_ONCE]]
                dask.compute(*tasks, scheduler="threads", num_workers=threads)

    def shards(self, level: int) -> list[Box]:
        """The shards of a level, clipped to it, row by row."""
        array = self._levels[level]
        height, width = cast("tuple[int, int]", array.shape)
        tall, wide = cast("tuple[int, int]", array.shards)
        return [
            Box(y, x, min(y + tall, height), min(x + wide, width))
            for y in range(0, height, tall)
            for x in range(0, width, wide)
        ]

    def shards_above(self, level: int, changed: Iterable[Box]) -> list[Box]:
        """The shards of a level that show any of the boxes of level 0."""
        factor = 2**level
        coarse = [Box(b.y0 // factor, b.x0 // factor, -(-b.y1 // factor), -(-b.x1 // factor)) for b in changed]
        return [s for s in self.shards(level) if any(not s.intersect(c).is_empty for c in coarse)]

    def below(self, level: int, box: Box) -> Box:
        """The pixels of the next finer level that a box of a level shows."""
        height, width = cast("tuple[int, int]", self._levels[level - 1].shape)
        return Box(2 * box.y0, 2 * box.x0, min(2 * box.y1, height), min(2 * box.x1, width))

    def _build_shard(self, level: int, box: Box) -> None:
        self._write_shard(level, box, majority(self.read(self.below(level, box), level - 1)))

    def _write_shard(self, level: int, box: Box, labels: Labels) -> None:
        """Replace a shard whole, whatever lies there: a damaged one must not be read first, as an update would."""
        tall, wide = cast("tuple[int, int]", self._levels[level].shards)
        key = f"{level}/c/{box.y0 // tall}/{box.x0 // wide}"
        encoded = self._encode_shard(level, labels)
        sync(self._store.delete(key) if encoded is None else self._store.set(key, encoded))

    def _encode_shard(self, level: int, labels: Labels) -> Buffer | None:
        """The bytes of one shard, as Zarr itself encodes them; None where every pixel is the fill value."""
        if not hasattr(self._scratch, "array"):
            array = self._levels[level]
            self._scratch.memory = {}
            self._scratch.array = zarr.create_array(
                MemoryStore(self._scratch.memory),
                shape=cast("tuple[int, int]", array.shards),
                chunks=array.chunks,
                shards=array.shards,
                dtype=array.dtype,
                fill_value=NOT_PREDICTED,
                compressors=array.compressors,
            )
        self._scratch.memory.clear()
        self._scratch.array[: labels.shape[0], : labels.shape[1]] = labels
        return self._scratch.memory.get("c/0/0")


def majority(labels: Labels) -> Labels:
    """Halve a label image: each pixel takes the label that most of its 2 x 2 pixels have.

    Ties go to the greater class, so that thin structures stay visible, and never to 'not predicted'. Odd
    sides count their last row or column twice.
    """
    height, width = labels.shape
    padded = np.pad(labels, ((0, height % 2), (0, width % 2)), mode="edge")
    # Adding one wraps 255 to 0: 'not predicted' becomes the smallest value and so loses every tie.
    ranked = padded + np.uint8(1)
    a, b, c, d = ranked[::2, ::2], ranked[::2, 1::2], ranked[1::2, ::2], ranked[1::2, 1::2]
    low_1, high_1 = np.minimum(a, b), np.maximum(a, b)
    low_2, high_2 = np.minimum(c, d), np.maximum(c, d)
    least, greatest = np.minimum(low_1, low_2), np.maximum(high_1, high_2)
    middle_1, middle_2 = np.maximum(low_1, low_2), np.minimum(high_1, high_2)
    lower, upper = np.minimum(middle_1, middle_2), np.maximum(middle_1, middle_2)
    top_pair = upper == greatest
    result = np.where(top_pair, greatest, np.where(lower == upper, lower, np.where(least == lower, least, greatest)))
    # Two equal pairs: the upper pair is the greater class already.
    return result - np.uint8(1)


def level_shapes(extent: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of the mask's levels: halved, rounded up, until the longer side is at most 512 px."""
    shapes = [extent]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def label_digest(labels: Labels) -> str:
    """blake2b-128 of the labels in row order."""
    return hashlib.blake2b(np.ascontiguousarray(labels).data, digest_size=16).hexdigest()


def _ome_metadata(
    levels: int, classes: Sequence[LabelClass], pixel_size: PixelSize | None, grid: OutputGrid
) -> dict[str, Any]:
    unit = {"unit": _OME_UNITS[pixel_size.unit]} if pixel_size and pixel_size.unit in _OME_UNITS else {}
    image_px = pixel_size or PixelSize(1.0, 1.0, "um")  # without a pixel size, lengths are in image pixels
    mask_px = image_px.on(grid)
    colors = [*((label, *_rgb(item.color), 255 if label else 0) for label, item in enumerate(classes))]
    colors.append((NOT_PREDICTED, 128, 128, 128, 255))
    names = {label: item.name for label, item in enumerate(classes)} | {NOT_PREDICTED: "not predicted"}
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": "mask",
                "axes": [{"name": axis, "type": "space", **unit} for axis in "yx"],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [mask_px.y * 2**level, mask_px.x * 2**level]},
                            {
                                "type": "translation",
                                "translation": [
                                    _shift(mask_px.y * 2**level, image_px.y),
                                    _shift(mask_px.x * 2**level, image_px.x),
                                ],
                            },
                        ],
                    }
                    for level in range(levels)
                ],
                "type": "majority of 2 x 2 pixels",
            }
        ],
        "image-label": {
            "version": "0.5",
            "colors": [{"label-value": label, "rgba": list(rgba)} for label, *rgba in colors],
            "properties": [{"label-value": label, "name": name} for label, name in names.items()],
        },
    }


def _shift(side: float, image_side: float) -> float:
    """Where the first pixel's centre lies from the centre of the image's: half of what one is longer than the other."""
    return (side - image_side) / 2


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
