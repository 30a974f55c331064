"""Conversion of stored samples to bands: palettes, inverted greys, packed bits, YCbCr, alpha."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from tifffile import TiffPage

from tiling.errors import SourceError
from tiling.sources.limits import MAX_BANDS
from tiling.sources.tiff.directory import Directory

Samples = npt.NDArray[np.generic]
Convert = Callable[[Samples], Samples]

JPEG_CODES = frozenset({6, 7, 33007, 34892})
_APERIO_JPEG2000_YCBCR = 33003
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR = range(7)
_NAMES = {
    _MINISWHITE: "min-is-white",
    _MINISBLACK: "min-is-black",
    _RGB: "rgb",
    _PALETTE: "palette",
    _MASK: "mask",
    _CMYK: "cmyk",
    _YCBCR: "ycbcr",
    8: "cielab",
    9: "icclab",
    10: "itulab",
    32803: "colour filter array",
    32844: "logl",
    32845: "logluv",
    34892: "linear raw",
}


@dataclass(frozen=True, slots=True)
class Interpretation:
    """Mapping of stored samples to bands.

    `kept` are the sample numbers that are read; alpha, whose names are `alpha`, is among them only where it is kept.
    `convert` maps a decoded segment `(y, x, sample)` to `(y, x, band)`; None where samples are bands already.
    """

    photometric: str
    bands: tuple[str, ...]
    dtype: np.dtype[np.generic]
    kept: tuple[int, ...]
    has_alpha: bool
    convert: Convert | None
    alpha: tuple[str, ...] = ()
    is_alpha_kept: bool = False


def interpret(page: TiffPage, directory: Directory, *, is_indexed: bool = False, alpha: bool = False) -> Interpretation:
    """Decide what a page's samples mean; `SourceError` for colours that would come out wrong.

    `is_indexed`: the numbers themselves are the band of a page with a palette, which is how a channel is shown.
    `alpha`: alpha channels are bands too, after the others.
    """
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if is_indexed and photometric == _PALETTE:
        photometric = _MINISBLACK
    name = _NAMES.get(photometric, f"photometric {photometric}")
    if page.dtype is None:
        raise SourceError(f"samples of {page.bitspersample} bits in format {page.sampleformat} are not supported")
    if page.dtype.kind not in "buif":
        raise SourceError(f"samples of type {page.dtype} are not supported; convert to integers or floats")
    if not 1 <= samples <= MAX_BANDS:
        raise SourceError(f"{samples} samples per pixel; 1 to {MAX_BANDS} are allowed")
    stored = np.dtype(np.uint8) if page.dtype.kind == "b" else page.dtype.newbyteorder("=")
    clear = sorted(_alpha_samples(page, samples))
    kept = tuple(sample for sample in range(samples) if sample not in clear)
    dtype, convert, kept = _conversion(page, photometric, directory, name, stored, kept)
    bands = _band_names(photometric, len(kept))
    if photometric == _PALETTE:
        bands = _band_names(_RGB, 3)
    called = tuple("alpha" if at == 0 else f"alpha {at + 1}" for at in range(len(clear)))
    if alpha and clear and photometric in {_MINISBLACK, _RGB} and len(kept) == len(bands):
        return Interpretation(
            name, (*bands, *called), dtype, (*kept, *clear), True, convert, called, is_alpha_kept=True
        )
    offered = called if photometric in {_MINISBLACK, _RGB} else ()
    return Interpretation(name, bands, dtype, kept, bool(clear), convert, offered)


def interpret_alpha(page: TiffPage) -> Interpretation | None:
    """The same of a page's first alpha channel alone, as it is stored; None where there is none."""
    alpha = sorted(_alpha_samples(page, int(page.samplesperpixel)))
    if not alpha or page.dtype is None:
        return None
    return Interpretation("alpha", ("alpha",), page.dtype.newbyteorder("="), (alpha[0],), True, None)


def interpret_index(page: TiffPage, nodata: float | None) -> Interpretation | None:
    """Mask of a palette image's pixels that hold data: those of another number than nodata; None for all else.

    The bands are colours, among which that number means nothing.
    """
    if int(page.photometric) != _PALETTE or nodata is None or page.dtype is None:
        return None

    def convert(segment: Samples) -> Samples:
        return (segment[..., :1] != nodata).astype(np.uint8)

    return Interpretation("index", ("data",), np.dtype(np.uint8), (0,), False, convert)


def _alpha_samples(page: TiffPage, samples: int) -> frozenset[int]:
    """Extra samples marked as associated (1) or unassociated (2) alpha; unspecified ones (0) are bands."""
    extra = tuple(int(value) for value in page.extrasamples)[: max(0, samples - 1)]
    first = samples - len(extra)
    return frozenset(first + i for i, value in enumerate(extra) if value in {1, 2})


def _band_names(photometric: int, count: int) -> tuple[str, ...]:
    if photometric in {_RGB, _YCBCR} and count >= 3:
        return ("red", "green", "blue", *(str(i + 1) for i in range(3, count)))
    return ("gray",) if count == 1 else tuple(str(i + 1) for i in range(count))


def _conversion(
    page: TiffPage,
    photometric: int,
    directory: Directory,
    name: str,
    stored: np.dtype[np.generic],
    kept: tuple[int, ...],
) -> tuple[np.dtype[np.generic], Convert | None, tuple[int, ...]]:
    """The bands' type, the conversion, and the samples that it needs."""
    bits = page.bitspersample
    if photometric == _PALETTE:
        return np.dtype(np.uint8), _palette(page, directory, stored), kept[:1]
    if photometric in {_MINISWHITE, _MINISBLACK, _MASK, _RGB}:
        return stored, _grey_scale(photometric == _MINISWHITE, bits, stored), kept
    if photometric == _YCBCR and int(page.compression) in JPEG_CODES and len(kept) == 3 and int(page.planarconfig) == 1:
        return stored, None, kept
    if photometric == _YCBCR and _is_plain_ycbcr(page, stored, kept):
        return stored, ycbcr_to_rgb, kept
    raise SourceError(
        f"colours are stored as {name} ({len(kept)} samples, compression {int(page.compression)}), "
        "which would come out wrong; convert the image to RGB"
    )


def _is_plain_ycbcr(page: TiffPage, stored: np.dtype[np.generic], kept: tuple[int, ...]) -> bool:
    jpeg2000 = int(page.compression) == _APERIO_JPEG2000_YCBCR
    whole = page.subsampling is not None and tuple(page.subsampling) == (1, 1)
    return stored == np.uint8 and kept == (0, 1, 2) and int(page.planarconfig) == 1 and (jpeg2000 or whole)


def _grey_scale(inverted: bool, bits: object, stored: np.dtype[np.generic]) -> Convert | None:
    """Spread 1, 2 and 4 bits over 0 to 255, and turn greys whose 0 is white."""
    factor = {1: 255, 2: 85, 4: 17}.get(bits, 1) if isinstance(bits, int) else 1
    top = (1 << bits) - 1 if isinstance(bits, int) and stored.kind == "u" else -1
    if stored.kind == "f" or (factor == 1 and not inverted):
        return None

    def convert(segment: Samples) -> Samples:
        numbers = segment.astype(stored, copy=False)
        if inverted:
            # Signed integers turn around -1, so that the lowest value becomes the highest.
            numbers = np.subtract(stored.type(top), numbers)
        return np.multiply(numbers, stored.type(factor)) if factor > 1 else numbers

    return convert


def _palette(page: TiffPage, directory: Directory, stored: np.dtype[np.generic]) -> Convert:
    colors = directory.values(320)
    bits = cast("object", page.bitspersample)  # a tuple where samples differ
    if not isinstance(bits, int) or bits > 16 or stored.kind != "u" or colors is None or colors.size < 3 << bits:
        raise SourceError("palette image without a complete colour map; convert it to RGB")
    table = colors[: 3 << bits].reshape(3, -1).T.astype(np.uint16)
    # Some writers store 8-bit colours where the standard asks for 16-bit ones; libtiff tells them in this way.
    lookup = np.ascontiguousarray(table if table.max() < 256 else table >> 8).astype(np.uint8)

    def convert(segment: Samples) -> Samples:
        return lookup[segment[..., 0].astype(np.intp)]

    return convert


def ycbcr_to_rgb(segment: Samples) -> Samples:
    """Full-range BT.601 YCbCr to RGB, `(y, x, 3)` uint8 (JFIF 1.02)."""
    values = segment.astype(np.float32)
    luma, blue, red = values[..., 0], values[..., 1] - 128, values[..., 2] - 128
    rgb = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue],
        axis=-1,
    )
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
