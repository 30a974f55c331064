"""Shards of a Zarr array as bytes, made and read without Zarr's machinery, which takes longer than the codec itself.

Zarr v3's sharding codec with its index at the end: chunks by `bytes` (little-endian) and `zstd`, the index by `bytes`
and `crc32c` (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html).
"""

from __future__ import annotations

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

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
    """

    def __init__(self, shard: tuple[int, int], chunk: tuple[int, int], dtype: np.dtype[np.generic], level: int) -> None:
        self._chunk, self._dtype = chunk, dtype.newbyteorder("<")
        self._grid = shard[0] // chunk[0], shard[1] // chunk[1]
        self._codec = Zstd(level=level, checksum=True)
        self._room = np.zeros(chunk, self._dtype)

    def encode(self, pixels: NDArray[np.generic]) -> bytes | None:
        """A shard, or the part of it that lies inside the image; None where every pixel is 0, the fill value."""
        tall, wide = self._chunk
        index = np.full((*self._grid, 2), _ABSENT, "<u8")
        parts: list[bytes] = []
        at = 0
        for row in range(-(-pixels.shape[0] // tall)):
            for col in range(-(-pixels.shape[1] // wide)):
                chunk = pixels[row * tall : (row + 1) * tall, col * wide : (col + 1) * wide]
                if not chunk.any():
                    continue
                if chunk.shape != self._chunk:
                    self._room[:] = 0
                self._room[: chunk.shape[0], : chunk.shape[1]] = chunk
                encoded = bytes(self._codec.encode(self._room))
                index[row, col] = at, len(encoded)
                parts.append(encoded)
                at += len(encoded)
        if not parts:
            return None
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
            return np.frombuffer(self._codec.decode(data), self._dtype).reshape(self._chunk)
        except (RuntimeError, ValueError) as error:
            raise ShardFormatError(f"a chunk of it isn't what was written ({error})") from error
