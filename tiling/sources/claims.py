"""Unpacked size of a compressed chunk, known before a decoder takes memory for it.

Blosc: its 16-byte header. Zstandard: RFC 8878. gzip and zlib: RFC 1952 and 1950, which don't say, and are counted.
"""

from __future__ import annotations

import struct
import zlib

from tiling.errors import SourceError

Data = bytes | memoryview

_BLOSC_HEADER_BYTES = 16
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_BYTES = 128 * 1024
_MOST_PER_DEFLATED_BYTE = 1032
_COUNTED_BYTES = 1024**2


def expect_modest(data: Data, limit_bytes: int) -> None:
    """Refuse a chunk that unpacks to more than the limit; what no known codec wrote passes.

    Raises:
        SourceError: the chunk is hostile, or the chunks are too large to read.
    """
    claimed = claimed_bytes(data, limit_bytes)
    if claimed > limit_bytes:
        raise SourceError(
            f"a chunk of {len(data)} bytes unpacks to more than {limit_bytes}, which is what a chunk may hold: it is "
            f"damaged or hostile"
        )


def claimed_bytes(data: Data, limit_bytes: int) -> int:
    """Bytes that a chunk unpacks to, at most; anything above the limit where it is more than that."""
    if data[:4] == ZSTD_MAGIC:
        return _zstd(data, limit_bytes)
    if data[:2] == b"\x1f\x8b" or (len(data) > 1 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0):
        return _deflated(data, limit_bytes)
    if len(data) >= _BLOSC_HEADER_BYTES and data[0] in {1, 2} and struct.unpack_from("<I", data, 12)[0] == len(data):
        return int(struct.unpack_from("<I", data, 4)[0])
    return len(data)


def _zstd(data: Data, limit_bytes: int) -> int:
    """The size that the first frame's header claims, or an upper limit from its blocks where it claims none."""
    if len(data) < 6:
        return 0
    flags = data[4]
    single, dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    at = 5 + (1 - single) + dictionary
    width = (single, 2, 4, 8)[flags >> 6]
    if width:
        field = int.from_bytes(data[at : at + width], "little")
        return field + 256 if width == 2 else field
    total = 0
    while at + 3 <= len(data) and total <= limit_bytes:
        header = int.from_bytes(data[at : at + 3], "little")
        kind, size = header >> 1 & 3, header >> 3
        total += size if kind < 2 else _ZSTD_BLOCK_BYTES
        at += 3 + (1 if kind == 1 else size)
        if header & 1:
            break
    return total


def _deflated(data: Data, limit_bytes: int) -> int:
    if len(data) * _MOST_PER_DEFLATED_BYTE <= limit_bytes:
        return len(data)
    stream, total, rest = zlib.decompressobj(47), 0, data
    try:
        while rest and not stream.eof and total <= limit_bytes:
            total += len(stream.decompress(rest, _COUNTED_BYTES))
            rest = stream.unconsumed_tail
    except zlib.error:
        return len(data)  # no such stream; the decoder says what is wrong with it
    return max(total, len(data))
