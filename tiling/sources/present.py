"""Data and no data: values told apart by the file's own mask or alpha, its no-data value, or NaN.

The rule is that of GDAL's dataset mask, over the bands that are read: a pixel holds data where any band does
(https://gdal.org/en/stable/development/rfc/rfc15_nodatabitmask.html). A no-data value, the file's mask and what is no
number are held together: a pixel has to pass all of them.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.sources.facts import ImageFacts
from tiling.sources.matching import matched

Pixels = npt.NDArray[np.generic]
Present = npt.NDArray[np.bool_]
"""`(y, x, band)`, or `(y, x, 1)` where all bands have the same: whether a value is data."""


Fill = tuple[float, ...]
"""One value per band."""


class _Readable(Protocol):
    @property
    def facts(self) -> ImageFacts: ...

    def read(self, level: int, box: Box) -> Pixels: ...

    def read_mask(self, level: int, box: Box) -> Present | None: ...


@runtime_checkable
class _HoldsByBand(Protocol):
    """Reader of an image whose bands may lack data in different pixels, which no one value and no mask says."""

    def read_held(self, level: int, box: Box, bands: tuple[int, ...] | None) -> tuple[Pixels, Present | None]: ...


def present(pixels: Pixels, nodata: float | None, mask: Present | None = None) -> Present | None:
    """Mask of the values `(y, x, band)` that are data; None where all are.

    A float or a signed integer that is the no-data value stands for nothing in its band. An unsigned integer that is it
    (0, 255, 65535) is a value as well, such as black in one colour: it counts where all bands of the pixel have it.
    """
    held: Present | None = None
    ends = matched(nodata, pixels.dtype)
    if pixels.dtype.kind == "f":
        held = np.isfinite(pixels)
    if ends is not None:
        differs = _outside(pixels, *ends)
        if pixels.dtype.kind == "u":
            differs = np.asarray(differs.any(axis=-1, keepdims=True))
        held = differs if held is None else held & differs
    if mask is not None:
        held = mask[..., np.newaxis] if held is None else held & mask[..., np.newaxis]
    return None if held is None or held.all() else held


def _outside(pixels: npt.NDArray[Any], low: float, high: float) -> Present:
    """Values that are not between two of their type."""
    if low == high:
        return pixels != pixels.dtype.type(low)
    return (pixels < pixels.dtype.type(low)) | (pixels > pixels.dtype.type(high))


def filled(pixels: Pixels, held: Present, fill: Fill) -> Pixels:
    """Pixels `(y, x, band)` with a band's fill in place of what is no data."""
    return np.where(held, pixels, np.array(fill, pixels.dtype))


def read_present(
    reader: _Readable, level: int, box: Box, bands: tuple[int, ...] | None
) -> tuple[Pixels, Present | None]:
    """Pixels of some bands of a file, and which of their values are data."""
    facts = reader.facts
    file = getattr(reader, "file", reader)
    if isinstance(file, _HoldsByBand):
        return file.read_held(level, box, bands)
    pixels = read_bands(reader, level, box, bands)
    mask = reader.read_mask(level, box) if facts.has_mask else None
    return pixels, present(pixels, facts.nodata, mask)


def read_bands(reader: _Readable, level: int, box: Box, bands: tuple[int, ...] | None) -> Pixels:
    """Pixels of some bands of a file; None takes all."""
    file = getattr(reader, "file", reader)
    if isinstance(file, _HoldsByBand):
        return file.read_held(level, box, bands)[0]
    pixels = reader.read(level, box)
    return pixels if bands is None else np.ascontiguousarray(pixels[..., list(bands)])
