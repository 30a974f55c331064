"""Georeference of a JPEG 2000 file as GDAL reads it (GeoJP2, and GMLJP2, OGC 08-085).

GDAL is given a file in memory: one pixel with the image's own boxes of place. It never opens the image itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import uuid4

import imagecodecs
import numpy as np

from tiling.sources.facts import Georeference
from tiling.sources.file import ImageFile
from tiling.sources.tiff.georeference import georeference_of, settings_of_gdal

_HEAD_BYTES = 1024**2
_OF_PLACE = {b"uuid", b"asoc", b"xml "}
_GEOJP2 = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")


def jpeg2000_georeference(file: ImageFile) -> Georeference | None:
    """Place of an image; None where no box before its codestream says so."""
    boxes = [box for kind, box in _boxes(file.read(_HEAD_BYTES, 0)) if kind in _OF_PLACE]
    if not any(_GEOJP2 in box[:32] or b"gml" in box for box in boxes):
        return None
    from rasterio.errors import RasterioError
    from rasterio.io import MemoryFile

    try:
        with (
            settings_of_gdal(),
            MemoryFile(_one_pixel(boxes), dirname=uuid4().hex, filename="a.jp2") as image,
            image.open(driver="JP2OpenJPEG") as dataset,
        ):
            return georeference_of(dataset)
    except RasterioError:
        return None


def _one_pixel(boxes: list[bytes]) -> bytes:
    """A JP2 of one pixel with those boxes before its codestream."""
    own = list(_boxes(bytes(imagecodecs.jpeg2k_encode(np.zeros((1, 1), np.uint8), codecformat="jp2"))))
    stream = [box for kind, box in own if kind == b"jp2c"]
    return b"".join([*(box for kind, box in own if kind != b"jp2c"), *boxes, *stream])


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Boxes of a JP2 file, those that reach beyond what is given left out; none of a bare codestream."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        length = length or len(data) - at
        if length < 8 or at + length > len(data):
            return
        yield kind, data[at : at + length]
        at += length
