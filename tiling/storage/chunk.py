"""Chunks of a Zarr array as bytes, made and read without Zarr's machinery, which takes longer than the codec itself.

Zarr v3's `bytes` (little-endian), `blosc` or nothing, and `crc32c` in that order, as staged tiles are stored: the bytes
are Zarr's own (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/).
"""

from __future__ import annotations

import math
from typing import Any, cast

import google_crc32c
import numpy as np
import zarr
from imagecodecs import blosc_decode, blosc_encode
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from tiling.storage.codec_settings import setting_text

_CRC_BYTES = 4
_BLOSC_OVERHEAD_BYTES = 32
"""That Blosc adds to what it can't compress."""
MOST_OVERHEAD_BYTES = _BLOSC_OVERHEAD_BYTES + _CRC_BYTES
"""By which a chunk may take more than its pixels."""
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class ChunkFormatError(ValueError):
    """Bytes that aren't a whole chunk of this kind."""


class ChunkCodec:
    """The chunks of one array.

    Args:
        shape: of a chunk.
        dtype: of the pixels.
        codec: Zarr's codec, whose settings count; None where pixels are stored as they are.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[np.generic], codec: BloscCodec | None) -> None:
        self._shape, self._dtype = shape, dtype.newbyteorder("<")
        self._bytes = math.prod(shape) * dtype.itemsize
        self._blosc = None if codec is None else _Blosc(codec, dtype.itemsize)

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ChunkCodec | None:
        """The codec of an array; None for other codecs than these, which stay Zarr's; chunks of any names."""
        metadata = cast("Any", array.metadata)
        if array.dtype.kind not in "uif" or len(metadata.codecs) not in (2, 3) or metadata.storage_transformers:
            return None
        lead, *codecs, last = metadata.codecs
        is_known = isinstance(lead, BytesCodec) and isinstance(last, Crc32cCodec)
        is_known = is_known and all(isinstance(each, BloscCodec) and each.blocksize == 0 for each in codecs)
        is_known = is_known and (array.dtype.itemsize == 1 or lead == BytesCodec())
        dtype = cast("np.dtype[np.generic]", array.dtype)
        return cls(array.chunks, dtype, codecs[0] if codecs else None) if is_known else None

    @property
    def compresses(self) -> bool:
        """True if a chunk takes less than its pixels."""
        return self._blosc is not None

    def encode(self, pixels: NDArray[np.generic]) -> tuple[memoryview | bytes, ...]:
        """A chunk, of as many pixels as one has, in pieces that follow each other."""
        whole = np.ascontiguousarray(pixels, self._dtype).reshape(self._shape)
        stored = whole.reshape(-1).view(np.uint8) if self._blosc is None else self._blosc.encode(whole)
        return stored.data, _checksum(stored)

    def decode(self, data: NDArray[np.uint8]) -> NDArray[np.generic]:
        """The pixels of a chunk, in the same memory where they are stored as they are.

        Raises:
            ChunkFormatError: bytes that aren't a chunk, or not as they were written.
        """
        stored = data[:-_CRC_BYTES]
        if not stored.size or _checksum(stored) != data[-_CRC_BYTES:].tobytes():
            raise ChunkFormatError("its bytes aren't those that were written")
        flat = stored if self._blosc is None else self._blosc.decode(stored, self._bytes)
        if flat.nbytes != self._bytes:
            raise ChunkFormatError(f"it holds {flat.nbytes} bytes for {self._bytes}")
        return flat.view(self._dtype).reshape(self._shape)


class _Blosc:
    """Blosc with a codec's settings, in one thread."""

    def __init__(self, codec: BloscCodec, itemsize: int) -> None:
        self._level, self._compressor = codec.clevel, setting_text(codec.cname)
        self._shuffle, self._itemsize = _SHUFFLES[setting_text(codec.shuffle)], itemsize

    def encode(self, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        room = np.empty(pixels.nbytes + _BLOSC_OVERHEAD_BYTES, np.uint8)  # where nothing is copied again
        encoded = blosc_encode(
            cast("Any", pixels),
            level=self._level,
            compressor=self._compressor,
            shuffle=self._shuffle,
            typesize=self._itemsize,
            numthreads=1,
            out=cast("Any", room),
        )
        return cast("NDArray[np.uint8]", encoded)

    def decode(self, encoded: NDArray[np.uint8], size_bytes: int) -> NDArray[np.uint8]:
        flat = np.empty(size_bytes, np.uint8)
        try:
            decoded = cast("Any", blosc_decode(cast("Any", encoded), numthreads=1, out=cast("Any", flat)))
        except (RuntimeError, ValueError) as error:
            raise ChunkFormatError(f"it doesn't decode: {error}") from error
        return flat[: decoded.nbytes]


def _checksum(encoded: NDArray[np.uint8]) -> bytes:
    return google_crc32c.value(cast("Any", encoded)).to_bytes(_CRC_BYTES, "little")
