"""Sizes that compressed streams claim for themselves, read before a decoder takes memory for them.

JPEG: ITU-T T.81. JPEG 2000: ITU-T T.800. PNG: ISO 15948. WebP: RFC 9649. LERC: Esri's Lerc2 blob header.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

import imagecodecs

from tiling.errors import SourceError
from tiling.sources.claims import ZSTD_MAGIC, expect_modest
from tiling.sources.limits import MAX_DECODED_BYTES, MAX_SCANS

_SOF_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_LERC = b"Lerc2 "
_LERC_HEAD_BYTES = 64
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True, slots=True)
class Frame:
    """The size that a stream claims."""

    height: int
    width: int
    components: int
    bits: int
    progressive: bool = False
    working_factor: int = 1

    @property
    def working_bytes(self) -> int:
        """Memory that a decoder takes: the pixels, several times over where it keeps coefficients as well."""
        return self.height * self.width * self.components * -(-self.bits // 8) * self.working_factor


def jpeg_frame(data: bytes) -> Frame:
    """The frame header of a JPEG stream, abbreviated ones included."""
    if data[:2] != b"\xff\xd8":
        raise SourceError("not a JPEG stream: it does not start with SOI")
    position = 2
    while (found := _next_marker(data, position)) is not None:
        marker, position = found
        if marker in _SOF_MARKERS:
            if position + 10 > len(data):
                break
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            progressive = marker in _PROGRESSIVE
            return Frame(height, width, components, bits, progressive, 4 if progressive else 1)
        if marker == 0xDA:
            break
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    raise SourceError("JPEG stream has no frame header")


def check_jpeg_end(data: bytes) -> None:
    """Refuse a stream that stops before its end marker: libjpeg would fill what is missing with grey."""
    if data.endswith(b"\xff\xd9"):
        return
    position = 2
    while (found := _next_marker(data, position)) is not None:
        marker, position = found
        if marker == 0xD9:
            return
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
        if marker != 0xDA:
            continue
        after = _AFTER_SCAN.search(data, position)
        if after is None:
            break
        position = after.start()
        if data[position : position + 2] == b"\xff\xd9":
            return
    raise SourceError("JPEG stream is truncated: its end marker is missing")


def _next_marker(data: bytes, position: int) -> tuple[int, int] | None:
    """The marker at a place of a JPEG stream, fill bytes before it skipped, and where it is; None at the end."""
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise SourceError(f"JPEG stream is damaged: no marker at byte {position}")
        if data[position + 1] != 0xFF:
            return data[position + 1], position
        position += 1
    return None


def check_jpeg_scans(data: bytes) -> None:
    """Refuse a progressive stream with so many scans that decoding it takes hours."""
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise SourceError(f"progressive JPEG has {scans} scans, more than {MAX_SCANS}; save it again as baseline")


def jpeg2000_frame(data: bytes) -> Frame:
    """The SIZ marker of a JPEG 2000 codestream, bare or inside JP2 boxes."""
    start = jpeg2000_codestream(data)
    if data[start : start + 4] != b"\xff\x4f\xff\x51":
        raise SourceError("not a JPEG 2000 codestream: SOC and SIZ markers are missing")
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
    components = struct.unpack_from(">H", data, start + 40)[0]
    bits = (data[start + 42] & 0x7F) + 1
    return Frame(max(0, y1 - y0), max(0, x1 - x0), components, bits, working_factor=5 if bits <= 8 else 3)


def jpeg2000_codestream(data: bytes) -> int:
    """Offset at which a JPEG 2000 codestream begins, bare or inside JP2 boxes."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return 0
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1:
            length = struct.unpack_from(">Q", data, position + 8)[0]
            header = 16
        if kind == b"jp2c":
            return position + header
        if length < header:
            break
        position += length
    raise SourceError("JP2 file holds no codestream")


def png_frame(data: bytes) -> Frame:
    """The IHDR chunk of a PNG stream; palettes count as their three or four colours."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise SourceError("not a PNG stream: its IHDR chunk is missing")
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    return Frame(height, width, {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}.get(color, 4), max(8, bits))


def webp_frame(data: bytes) -> Frame:
    """The canvas of a WebP stream."""
    kind = data[12:16]
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise SourceError("not a WebP stream: its RIFF header is missing")
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        packed = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        raise SourceError("WebP stream starts with an unknown chunk")
    return Frame(height, width, 4, 8)


def lerc_frame(data: bytes) -> Frame:
    """The header of a Lerc2 blob, bare or packed once more with deflate or zstd, as GDAL's LERC_DEFLATE does."""
    if data[:6] != _LERC:
        data = _unpacked_head(data)
    if data[:6] != _LERC:
        raise SourceError("not a Lerc2 blob")
    version = struct.unpack_from("<i", data, 6)[0]
    position = 10 + (4 if version >= 3 else 0)
    height, width = struct.unpack_from("<ii", data, position)
    components = struct.unpack_from("<i", data, position + 8)[0] if version >= 4 else 1
    return Frame(max(0, height), max(0, width), max(1, components), 64)


def _unpacked_head(data: bytes) -> bytes:
    """The first bytes of what is packed, once it is known that all of it fits the limit."""
    expect_modest(data, MAX_DECODED_BYTES)
    if data[:4] == ZSTD_MAGIC:
        return bytes(imagecodecs.zstd_decode(data)[:_LERC_HEAD_BYTES])
    try:
        return zlib.decompressobj().decompress(data, _LERC_HEAD_BYTES)
    except zlib.error:
        return b""
