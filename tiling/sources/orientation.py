"""Orientation, as TIFF 6.0 (tag 274) and EXIF have it.

Pixels are taken as they are stored in every format, as GDAL (QGIS) and tifffile (napari) give them, so that what a run
writes lies on the image there. What a file says is reported.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from tiling.sources.limits import LIBRARY_ERRORS

MEANINGS = {
    1: "as stored",
    2: "mirrored left to right",
    3: "upside down",
    4: "mirrored top to bottom",
    5: "transposed",
    6: "to be turned clockwise",
    7: "transposed and upside down",
    8: "to be turned anticlockwise",
}

_TAG = 274
_PILLOW = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


def known_orientation(value: int) -> int:
    """One that there is; others, which viewers ignore, are 1."""
    return value if value in MEANINGS else 1


def exif_orientation(kind: str, data: bytes) -> int:
    """Of a PNG, JPEG or WebP file; 1 where it doesn't say, or says it in a way that can't be read."""
    if kind not in _PILLOW or (b"Exif" not in data[: 2**20] and b"eXIf" not in data and b"EXIF" not in data):
        return 1
    try:
        with Image.open(BytesIO(data), formats=[_PILLOW[kind]]) as image:
            value = image.getexif().get(_TAG, 1)
    except (*LIBRARY_ERRORS, SyntaxError, Image.DecompressionBombError):
        return 1
    return known_orientation(value) if isinstance(value, int) else 1
