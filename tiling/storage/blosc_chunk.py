"""Chunks of a Zarr array as bytes, made and read without Zarr's machinery, which takes longer than the codec itself.

Zarr v3's `bytes` (little-endian), `blosc` and `crc32c` in that order, as staged tiles are stored: the bytes are Zarr's
own (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/).
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
_MOST_OVERHEAD_BYTES = 32
"""That Blosc adds to what it can't compress."""
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class ChunkFormatError(ValueError):
    """Bytes that aren't a whole chunk of this kind."""


class BloscChunks:
    """The chunks of one array.

    Args:
        shape: of a chunk.
        dtype: of the pixels.
        codec: Zarr's codec, whose settings count.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[np.generic], codec: BloscCodec) -> None:
        self._shape, self._dtype = shape, dtype.newbyteorder("<")
        self._level, self._compressor = codec.clevel, setting_text(codec.cname)
        self._shuffle = _SHUFFLES[setting_text(codec.shuffle)]

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> BloscChunks | None:
        """The codec of an array; None for other codecs than these, which stay Zarr's."""
        metadata = cast("Any", array.metadata)
        if array.dtype.kind not in "uif" or len(metadata.codecs) != 3 or metadata.storage_transformers:
            return None
        lead, codec, last = metadata.codecs
        is_known = isinstance(lead, BytesCodec) and isinstance(codec, BloscCodec) and isinstance(last, Crc32cCodec)
        is_known = is_known and (array.dtype.itemsize == 1 or lead == BytesCodec())
        is_known = is_known and metadata.chunk_key_encoding.name == "default" and codec.blocksize == 0
        is_known = is_known and metadata.chunk_key_encoding.separator == "/"
        return cls(array.chunks, cast("np.dtype[np.generic]", array.dtype), codec) if is_known else None

    def encode(self, pixels: NDArray[np.generic]) -> memoryview:
        """A chunk, of as many pixels as one has."""
        whole = np.ascontiguousarray(pixels, self._dtype).reshape(self._shape)
        room = np.empty(whole.nbytes + _MOST_OVERHEAD_BYTES + _CRC_BYTES, np.uint8)  # where nothing is copied again
        encoded = cast(
            "NDArray[np.uint8]",
            blosc_encode(
                cast("Any", whole),
                level=self._level,
                compressor=self._compressor,
                shuffle=self._shuffle,
                typesize=self._dtype.itemsize,
                numthreads=1,
                out=cast("Any", room[:-_CRC_BYTES]),
            ),
        )
        size = encoded.nbytes
        room[size : size + _CRC_BYTES] = np.frombuffer(_checksum(encoded), np.uint8)
        return room[: size + _CRC_BYTES].data

    def decode(self, data: bytes) -> NDArray[np.generic]:
        """The pixels of a chunk; raises ChunkFormatError for bytes that aren't one, or not as they were written."""
        encoded = np.frombuffer(data, np.uint8)[:-_CRC_BYTES]
        if not encoded.size or _checksum(encoded) != data[-_CRC_BYTES:]:
            raise ChunkFormatError("its bytes aren't those that were written")
        flat = np.empty(math.prod(self._shape) * self._dtype.itemsize, np.uint8)
        try:
            decoded = cast("Any", blosc_decode(cast("Any", encoded), numthreads=1, out=cast("Any", flat)))
        except (RuntimeError, ValueError) as error:
            raise ChunkFormatError(f"it doesn't decode: {error}") from error
        if decoded.nbytes != flat.nbytes:
            raise ChunkFormatError(f"it holds {decoded.nbytes} bytes for {flat.nbytes}")
        return flat.view(self._dtype).reshape(self._shape)


def _checksum(encoded: NDArray[np.uint8]) -> bytes:
    return google_crc32c.value(cast("Any", encoded)).to_bytes(_CRC_BYTES, "little")
