"""Shards of a Zarr array as bytes, made and read without Zarr's machinery, which takes longer than the codec itself.

Zarr v3's sharding codec with its index at the end: chunks by `bytes` (little-endian) and `zstd`, the index by `bytes`
and `crc32c` (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from tiling.storage.codec_settings import setting_text

_ABSENT = 2**64 - 1
_CRC_BYTES = 4


class ShardFormatError(ValueError):
    """Bytes that aren't a shard of this kind."""


class ShardCodec:
    """The shards of one array, of one thread.

    Args:
        shard: height and width.
        chunk: the same of a chunk, which divide those.
        dtype: of the pixels.
        level: of zstd.
        fill: the value of chunks that aren't there.
    """

    def __init__(
        self,
        shard: tuple[int, int],
        chunk: tuple[int, int],
        dtype: np.dtype[np.generic],
        level: int,
        fill: int = 0,
    ) -> None:
        self._chunk, self._dtype, self._fill = chunk, dtype.newbyteorder("<"), fill
        self._grid = shard[0] // chunk[0], shard[1] // chunk[1]
        self._order = _morton_order(self._grid)
        self._level = level
        self._room = np.full(chunk, fill, self._dtype)
        self._even: tuple[Any, bytes] | None = None

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ShardCodec | None:
        """The codec of an array of whole numbers `(y, x)` or `(channel, y, x)`, a shard of one channel; else None.

        None, too, for other codecs than these: metadata that somebody has changed says how its shards are read.
        """
        metadata = cast("Any", array.metadata)
        if array.dtype.kind not in "ui" or len(metadata.codecs) != 1 or metadata.storage_transformers:
            return None
        shards = metadata.codecs[0]
        if not isinstance(shards, ShardingCodec) or len(shards.codecs) != 2:
            return None
        lead, last = shards.codecs
        is_known = isinstance(lead, BytesCodec) and isinstance(last, ZstdCodec) and last.checksum
        is_known = is_known and (array.dtype.itemsize == 1 or lead == BytesCodec())
        is_known = is_known and shards.index_codecs == (BytesCodec(), Crc32cCodec())
        is_known = is_known and setting_text(shards.index_location) == "end"
        shape, chunk = cast("tuple[int, ...]", array.shards), array.chunks
        if not is_known or len(shape) not in (2, 3) or any(side != 1 for side in (*shape[:-2], *chunk[:-2])):
            return None
        dtype, level = cast("np.dtype[np.generic]", array.dtype), cast("ZstdCodec", last).level
        return cls((shape[-2], shape[-1]), (chunk[-2], chunk[-1]), dtype, level, int(cast("int", array.fill_value)))

    def encode(self, pixels: NDArray[np.generic]) -> bytes | None:
        """A shard, or the part of it that lies inside the image; None where every pixel is the fill value.

        The bytes are Zarr's own: chunks lie in Morton order.
        """
        return self.join(self.encode_chunks(pixels))

    def encode_chunks(self, pixels: NDArray[np.generic]) -> dict[tuple[int, int], bytes]:
        """The encoded chunks of a shard or of its first rows and columns, without those of only the fill value."""
        tall, wide = self._chunk
        chunks: dict[tuple[int, int], bytes] = {}
        for row, col in self._order:
            chunk = pixels[row * tall : (row + 1) * tall, col * wide : (col + 1) * wide]
            if not chunk.size:
                continue
            if chunk.shape != self._chunk:
                self._room[:] = self._fill
            self._room[: chunk.shape[0], : chunk.shape[1]] = chunk
            if (encoded := self._encoded_room()) is not None:
                chunks[row, col] = encoded
        return chunks

    def _encoded_room(self) -> bytes | None:
        """The chunk in the room; None where it holds the fill value alone. One of a single label is made once."""
        first = self._room[0, 0]
        if not (self._room[0] == first).all() or not (self._room == first).all():
            return compress(self._room, self._level, True)
        if first == self._fill:
            return None
        if self._even is None or self._even[0] != first:
            self._even = first, compress(self._room, self._level, True)
        return self._even[1]

    def join(self, chunks: Mapping[tuple[int, int], bytes]) -> bytes | None:
        """A shard of encoded chunks by row and column; None where there are none."""
        if not chunks:
            return None
        index = np.full((*self._grid, 2), _ABSENT, "<u8")
        parts, at = list[bytes](), 0
        for place in self._order:
            encoded = chunks.get(place)
            if encoded is not None:
                index[place] = at, len(encoded)
                parts.append(encoded)
                at += len(encoded)
        said = index.tobytes()
        return b"".join([*parts, said, google_crc32c.value(said).to_bytes(_CRC_BYTES, "little")])

    def decode_into(self, data: bytes, corner: tuple[int, int], pixels: NDArray[np.generic]) -> None:
        """Put what a shard holds of a box where it belongs; what is absent is left as it is.

        Args:
            data: the shard.
            corner: of the box, in the shard's pixels.
            pixels: of the box.

        Raises:
            ShardFormatError: other bytes.
        """
        (tall, wide), (y0, x0), (height, width) = self._chunk, corner, pixels.shape
        size = self._grid[0] * self._grid[1] * 16
        said, crc = data[-size - _CRC_BYTES : -_CRC_BYTES], data[-_CRC_BYTES:]
        if len(said) != size or google_crc32c.value(said) != int.from_bytes(crc, "little"):
            raise ShardFormatError("its index isn't what was written")
        index = np.frombuffer(said, "<u8").reshape(*self._grid, 2).tolist()
        for row in range(y0 // tall, -(-(y0 + height) // tall)):
            for col in range(x0 // wide, -(-(x0 + width) // wide)):
                start, length = index[row][col]
                if start == _ABSENT:
                    continue
                top, left = row * tall - y0, col * wide - x0
                place = pixels[max(0, top) : top + tall, max(0, left) : left + wide]
                chunk = self._decoded(data[start : start + length])
                place[:] = chunk[max(0, -top) :, max(0, -left) :][: place.shape[0], : place.shape[1]]

    def _decoded(self, data: bytes) -> NDArray[np.generic]:
        try:
            return np.frombuffer(decompress(data), self._dtype).reshape(self._chunk)
        except (RuntimeError, ValueError) as error:
            raise ShardFormatError(f"a chunk of it isn't what was written ({error})") from error


@cache
def _morton_order(grid: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The places of a grid, in Morton order."""
    return tuple(sorted(((row, col) for row, col in np.ndindex(grid)), key=_morton))


def _morton(place: tuple[int, int]) -> int:
    """The bits of a row and a column in turn, the row's the less."""
    return sum((place[axis] >> bit & 1) << (2 * bit + axis) for bit in range(32) for axis in (0, 1))
