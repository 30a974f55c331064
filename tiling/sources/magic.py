"""First bytes of the formats that readers of our own claim, or that are none of an image."""

from __future__ import annotations

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RASTER_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jpeg2000",
}
ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
RIFF = b"RIFF"
"""Begins a WebP."""
HEAD_BYTES = 16


def is_claimed(head: bytes) -> bool:
    """True if a file that begins so is no other reader's."""
    return head.startswith((*TIFF_MAGIC, *RASTER_MAGIC, *ARCHIVES, RIFF))
