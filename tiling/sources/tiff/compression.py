"""Compression of a TIFF's segments: the codecs that are read, and the size that a compressed stream claims."""

from __future__ import annotations

from collections.abc import Callable

from tiling.errors import SourceError
from tiling.sources import codestream
from tiling.sources.limits import MAX_DECODED_BYTES
from tiling.sources.tiff.lzw import check_lzw
from tiling.sources.tiff.samples import JPEG_CODES

# Codecs whose output cannot grow past the size asked for.
_BOUNDED_CODES = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000})
# Codecs whose streams carry a size of their own, and where it stands.
_FRAMES: dict[int, Callable[[bytes], codestream.Frame]] = {
    **dict.fromkeys(JPEG_CODES, codestream.jpeg_frame),
    **dict.fromkeys((33003, 33004, 33005, 34712), codestream.jpeg2000_frame),
    **dict.fromkeys((34927, 50001), codestream.webp_frame),
    34887: codestream.lerc_frame,
    34933: codestream.png_frame,
}
_LZW = 5


def expect_supported(compression: int) -> None:
    """Refuse a codec by its number in the file.

    Raises:
        SourceError: its output can't be bounded, or nothing decodes it.
    """
    if compression not in _BOUNDED_CODES and compression not in _FRAMES:
        raise SourceError(f"compression {compression} is not supported; convert with deflate, LZW, zstd or JPEG")


def check_stream(data: bytes, compression: int, segment_px: tuple[int, int], samples: int) -> None:
    """Compare the size that a stream claims with its segment, before a decoder takes memory for it.

    Raises:
        SourceError: it claims more, or is cut off.
    """
    if compression == _LZW:
        check_lzw(data)
    frame_of = _FRAMES.get(compression)
    if frame_of is None:
        return
    frame, (height, width) = frame_of(data), segment_px
    if frame.height * frame.width > 2 * height * width or frame.components > samples + 3:
        raise SourceError(
            f"its stream claims {frame.height} x {frame.width} px of {frame.components} components, "
            f"the segment has {height} x {width}"
        )
    if frame.working_bytes > MAX_DECODED_BYTES:
        raise SourceError(
            f"its stream takes {frame.working_bytes} bytes to decode, more than {MAX_DECODED_BYTES}; "
            "convert to smaller tiles"
        )
    if compression in JPEG_CODES:
        codestream.check_jpeg_end(data)
        if frame.progressive:
            codestream.check_jpeg_scans(data)
