"""Limits of what a file may claim before it is refused, and the one boundary where library errors become ours.

Every figure that a header claims is compared with these limits, or with the file's true length, before
memory is taken for it.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from xml.etree.ElementTree import ParseError

from tiling.errors import SourceError

MAX_DECODED_BYTES = 512 * 1024**2  # one strip, tile or whole image that offers no access inside it
MAX_ENCODED_BYTES = 512 * 1024**2  # compressed bytes handed to a decoder in one piece
MAX_SIDE_PX = 2**31 - 1
MAX_DIRECTORIES = 65_536
MAX_TAGS = 4096
MAX_TAG_BYTES = 32 * 1024**2
MAX_XML_BYTES = 16 * 1024**2  # a parsed tree takes ten times as much
MAX_SEGMENTS = 2 * 1024**2  # of one page; half a million px square in tiles of 384 px
MAX_ALL_SEGMENTS = 8 * 1024**2  # of all pages that are read
MAX_PYRAMID_PAGES = 256  # pages among which levels are looked for
MAX_BANDS = 1024
MAX_LEVELS = 32
MAX_SCANS = 256  # of a progressive JPEG: each scan costs a pass over the whole image

_OURS_LETTERS, _THEIRS_LETTERS = 5000, 200

# What tifffile, imagecodecs, numpy and the parsers of the standard library raise on hostile bytes. OSError is
# here because zlib-like readers use it for bad data and because a failed read of the disk is the world's fault.
LIBRARY_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    ParseError,
)


@contextmanager
def source_errors(where: str) -> Generator[None]:
    """Turn whatever is raised inside for the file's sake into a one-line `SourceError` that starts with `where`."""
    try:
        yield
    except (SourceError, *LIBRARY_ERRORS) as error:
        raise SourceError(f"{where}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Reason of an error, for people: our errors and the disk's as they are, others as signs of damage."""
    if isinstance(error, (SourceError, OSError)):
        return one_line(error)
    return f"damaged or not supported ({one_line(error)})"


def one_line(error: BaseException) -> str:
    """The error's text without line breaks or control characters; of a library's the first 200 of them.

    Ours name a file before they say what is wrong with it, and a path alone may be longer than that.
    """
    most = _OURS_LETTERS if isinstance(error, SourceError) else _THEIRS_LETTERS
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:most] or type(error).__name__
