"""One image at several scales, each level half as large as the one before, written by whole shards.

Level 0 has one shard per tile, so no two tiles ever write one file; a coarser shard is computed from the four
below it alone.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from tiling.errors import RunError, TilingError
from tiling.geometry import Box
from tiling.plan import Tile, TilePlan
from tiling.runs.pyramid_metadata import damaged_metadata
from tiling.storage.disk import is_partial
from tiling.storage.on_threads import on_threads
from tiling.storage.place import Place, read_at, remove_within, sweep, write_atomic
from tiling.storage.shard import ShardCodec, ShardFormatError
from tiling.storage.zarr_nodes import arrays_in

SMALLEST_LEVEL_PX = 512
QUICK = 4
"""Up to so many times the wanted pixels, whole shards are read: Zarr takes a millisecond or two for any read."""

Pixels = NDArray[Any]
"""uint8 of a mask and of probabilities, int32 of objects."""
Chunks = Mapping[tuple[int, int], bytes]
"""Encoded chunks by row and column; those of only the fill value are left out."""

if TYPE_CHECKING:
    import dask.array as da

    Lazy = da.Array


class Pyramid:
    """The levels of a group, `(y, x)` or `(channel, y, x)`.

    Args:
        path: where the group lies.
        group: with arrays "0", "1", … as `create_levels` makes them.
        halve: computes a level's pixels from those of the level below, along the last two axes.
    """

    def __init__(self, path: Place, group: zarr.Group, halve: Callable[[Pixels], Pixels]) -> None:
        self._path = path
        self._halve = halve
        self._scratch = threading.local()
        with damaged_metadata(path):
            count = len(cast("dict[str, Any]", group.attrs["ome"])["multiscales"][0]["datasets"])
            self.levels = arrays_in(group, map(str, range(count)))
            self._channels = self.levels[0].shape[0] if self.levels[0].ndim == 3 else None

    def lazy(self) -> list[Lazy]:
        """The levels as dask arrays: nothing is read before it is computed.

        Each time under new names, since a tile that is computed again changes what lies there.
        """
        import dask.array as da  # takes a second of a processor, with pandas, where only a few ask for it

        return [da.from_array(array, chunks=cast("Any", array.chunks), name=False) for array in self.levels]

    def read(self, box: Box, level: int = 0) -> Pixels:
        """Pixels of a box. Where that is most of its shards, their files are read whole."""
        (height, width), (tall, wide) = self._extent(level), self._shard_shape(level)
        if box.y0 >= 0 and box.x0 >= 0 and box.y1 <= height and box.x1 <= width:
            rows = min(height, -(-box.y1 // tall) * tall) - box.y0 // tall * tall
            cols = min(width, -(-box.x1 // wide) * wide) - box.x0 // wide * wide
            if rows * cols <= QUICK * box.area:
                return self.read_quick(box, level)
        return self._read_by_chunks(box, level)

    def _read_by_chunks(self, box: Box, level: int) -> Pixels:
        """The same by Zarr's machinery, which reads the chunks alone, and says of damaged ones what is wrong."""
        return cast("Pixels", self.levels[level][(..., *box.slices)])

    def read_quick(self, box: Box, level: int = 0) -> Pixels:
        """The same of `(y, x)`, without Zarr's machinery: of each shard the whole file is read."""
        array, codec = self.levels[level], self._codec(level)
        if codec is None or self._channels is not None:
            return self._read_by_chunks(box, level)
        tall, wide = self._shard_shape(level)
        found = np.full(box.shape, array.fill_value, array.dtype)
        for row in range(box.y0 // tall, -(-box.y1 // tall)):
            for col in range(box.x0 // wide, -(-box.x1 // wide)):
                shard = Box(row * tall, col * wide, (row + 1) * tall, (col + 1) * wide)
                part = shard.intersect(box)
                corner = part.y0 - shard.y0, part.x0 - shard.x0
                try:
                    data = read_at(self._path / f"{level}/c/{row}/{col}")
                    codec.decode_into(data, corner, found[part.relative_to(box).slices])
                except FileNotFoundError:
                    continue  # of nothing but the fill value
                except (ShardFormatError, OSError, TilingError):
                    return self._read_by_chunks(box, level)  # which says what is wrong
        return found

    def write(self, level: int, box: Box, pixels: Pixels) -> None:
        """Replace a shard whole, whatever lies there: a damaged one must not be read first, as an update would."""
        keys = self._keys(level, box)
        if self._channels is None:
            self._set(keys[0], self._encoded(level, pixels))
            return
        for channel, key in enumerate(keys):
            self._set(key, self._encoded(level, pixels[channel : channel + 1]))

    def holds(self, level: int, box: Box) -> bool:
        """True if a shard was written, in any channel."""
        return any((self._path / key).is_file() for key in self._keys(level, box))

    def lost(self, tiles: Iterable[Tile]) -> list[Tile]:
        """Those of the tiles that have no shard in any channel; one listing answers for all of them."""
        folder = self._path / "0"
        there = set[Place](folder.rglob("*") if isinstance(folder, Path) else folder.descendants())
        return [tile for tile in tiles if not any(self._path / key in there for key in self._keys(0, tile.valid))]

    def sweep(self) -> None:
        """Remove what writers that were killed have left under other names than the shards'; only when none writes."""
        sweep(self._path)

    def build(
        self,
        changed: Iterable[Box] | None = None,
        *,
        threads: int = 2,
        above: int = 0,
        written: Callable[[int, Box], bool] = lambda level, box: False,
    ) -> None:
        """Compute the levels above one, level 0, from that; with `changed`, only the shards above those boxes.

        Shards that are `written` already show the level below and are left as they are.
        """
        for level in range(above + 1, len(self.levels)):
            boxes = self.shards(level) if changed is None else self.shards_above(level, changed)
            boxes = [box for box in boxes if not written(level, box)]
            on_threads(partial(self._build_shard, level), boxes, threads)

    def shards(self, level: int) -> list[Box]:
        """The shards of a level, clipped to it, row by row."""
        height, width = self._extent(level)
        tall, wide = self._shard_shape(level)
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
        height, width = self._extent(level - 1)
        return Box(2 * box.y0, 2 * box.x0, min(2 * box.y1, height), min(2 * box.x1, width))

    def reduced_chunks(self, pixels: Pixels, levels: int) -> tuple[Chunks, ...]:
        """Encoded chunks of the next `levels` that a shard of level 0 gives, by their place from the shard's corner."""
        found: list[Chunks] = []
        for level in range(1, levels + 1):
            codec, pixels = self._codec(level), self._halve(pixels)
            assert codec is not None
            found.append(codec.encode_chunks(pixels))
        return tuple(found)

    def write_joined(self, level: int, box: Box, chunks: Chunks) -> None:
        """Replace a shard of `(y, x)` by one of encoded chunks, by their place from the shard's corner."""
        codec = self._codec(level)
        assert codec is not None
        (key,) = self._keys(level, box)
        self._set(key, codec.join(chunks))

    @property
    def whole_levels(self) -> int:
        """Number of levels that a shard of level 0 fills in whole chunks, which are then made of it alone."""
        if self._channels is not None:
            return 0
        whole = 0
        sides = zip(self._shard_shape(0), self.levels[0].chunks[-2:], strict=True)
        depths = [(shard // chunk & -(shard // chunk)).bit_length() - 1 for shard, chunk in sides]
        while whole < min(*depths, len(self.levels) - 1) and self._codec(whole + 1) is not None:
            whole += 1
        return whole

    def shows_below(self, level: int, box: Box) -> bool:
        """True if a coarser shard is what the level below makes of it; raises what reading raises."""
        return np.array_equal(self.read(box, level), self._halve(self.read(self.below(level, box), level - 1)))

    def unknown_files(self) -> list[str]:
        """Names of files and links below the group that are neither metadata nor a shard of the plan."""
        folder = self._path
        there = folder.rglob("*") if isinstance(folder, Path) else folder.descendants()
        planned = {key for n in range(len(self.levels)) for box in self.shards(n) for key in self._keys(n, box)}
        files = (each for each in there if not isinstance(each, Path) or each.is_symlink() or not each.is_dir())
        found = (str(each)[len(str(folder)) + 1 :] for each in files)
        known = planned | {"zarr.json", *(f"{level}/zarr.json" for level in range(len(self.levels)))}
        return sorted(name for name in found if name not in known and not is_partial(name.rpartition("/")[2]))

    def _build_shard(self, level: int, box: Box) -> None:
        try:
            below = self.read_quick(self.below(level, box), level - 1)
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{self._path} holds a shard of level {level - 1} that can't be read ({' '.join(str(error).split())}): "
                f"the pyramid can't be built on it; overtile verify names the tile, then overtile rerun --damaged"
            ) from error
        self.write(level, box, self._halve(below))

    def _keys(self, level: int, box: Box) -> list[str]:
        """The names of a shard's files, one per channel."""
        tall, wide = self._shard_shape(level)
        channels = [""] if self._channels is None else [f"{channel}/" for channel in range(self._channels)]
        return [f"{level}/c/{channel}{box.y0 // tall}/{box.x0 // wide}" for channel in channels]

    def _extent(self, level: int) -> tuple[int, int]:
        return cast("tuple[int, int]", self.levels[level].shape[-2:])

    def _shard_shape(self, level: int) -> tuple[int, int]:
        array = self.levels[level]
        return cast("tuple[int, int]", (array.shards or array.chunks)[-2:])

    def _codec(self, level: int) -> ShardCodec | None:
        """Codec of a level's shards in this thread; None where only Zarr can."""
        if not hasattr(self._scratch, "codecs"):
            self._scratch.codecs = {}
        codecs = cast("dict[int, ShardCodec | None]", self._scratch.codecs)
        if level not in codecs:
            codecs[level] = ShardCodec.of(self.levels[level])
        return codecs[level]

    def _set(self, key: str, encoded: bytes | None) -> None:
        if encoded is None:
            remove_within(self._path / key, self._path.parent)
        else:
            # Zarr's own store doesn't wait for the disk: after a power cut the ledger could name a shard of no bytes.
            write_atomic(self._path / key, encoded, below=self._path.parent)

    def _encoded(self, level: int, pixels: Pixels) -> bytes | None:
        """The bytes of one shard; None where every pixel is the fill value."""
        codec = self._codec(level)
        if codec is None:
            return self.encoded_by_zarr(level, pixels)
        return codec.encode(pixels.reshape(pixels.shape[-2:]))

    def encoded_by_zarr(self, level: int, pixels: Pixels) -> bytes | None:
        """The same, as Zarr itself encodes it, by any codec."""
        if not hasattr(self._scratch, "array"):
            array = self.levels[level]
            self._scratch.memory = {}
            self._scratch.array = zarr.create_array(
                MemoryStore(self._scratch.memory),
                shape=cast("tuple[int, ...]", array.shards),
                chunks=array.chunks,
                shards=array.shards,
                dtype=array.dtype,
                fill_value=array.fill_value,
                compressors=array.compressors,
            )
        self._scratch.memory.clear()
        self._scratch.array[(..., slice(pixels.shape[-2]), slice(pixels.shape[-1]))] = pixels
        found = cast("Buffer | None", self._scratch.memory.get("/".join(["c", *["0"] * pixels.ndim])))
        return None if found is None else found.to_bytes()


def create_levels(
    group: zarr.Group, plan: TilePlan, fill_value: int, channels: int | None = None, dtype: str = "uint8"
) -> int:
    """Make the arrays of all levels for a plan's mask, with every pixel `fill_value`; returns how many there are."""
    lead = () if channels is None else (channels,)
    one = () if channels is None else (1,)
    shapes = level_shapes(plan.mask.shape)
    for level, shape in enumerate(shapes):
        group.create_array(
            str(level),
            shape=(*lead, *shape),
            chunks=(*one, *plan.chunk_shape),
            shards=(*one, *plan.shard_shape),
            dtype=dtype,
            fill_value=fill_value,
            compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=("y", "x") if channels is None else ("c", "y", "x"),
        )
    return len(shapes)


def pixel_digest(pixels: Pixels) -> str:
    """blake2b-128 of the pixels, by channels and in row order."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()


def level_shapes(extent: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of an image's levels: halved, rounded up, until the longer side is at most 512 px."""
    shapes = [extent]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes
