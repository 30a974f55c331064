"""Virtual raster of GDAL (https://gdal.org/en/stable/drivers/raster/vrt.html): its grid, and which files lie where.

Read here and not by GDAL, so that a file can't lead to a URL, a driver or out of its folder. What `gdalbuildvrt` writes
of files on one grid is read; all else that a VRT can hold (warps, functions, filters, scales) is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import Scale
from tiling.sources.limits import MAX_BANDS, MAX_SIDE_PX
from tiling.sources.scene.contained import contained
from tiling.sources.scene.grid import WHOLE_PX, Affine

SUFFIX = ".vrt"
MAX_VRT_BYTES = 8 * 1024**2
MAX_SOURCES = 262_144
_TYPES = {
    "Byte": "uint8",
    "Int8": "int8",
    "UInt16": "uint16",
    "Int16": "int16",
    "UInt32": "uint32",
    "Int32": "int32",
    "UInt64": "uint64",
    "Int64": "int64",
    "Float32": "float32",
    "Float64": "float64",
}
_SOURCES = {"SimpleSource", "ComplexSource"}
_OF_DATASET = {"SRS", "GeoTransform", "Metadata", "VRTRasterBand", "OverviewList", "BlockXSize", "BlockYSize"}
_OF_BAND = {
    *_SOURCES,
    *{"NoDataValue", "ColorInterp", "Description", "Metadata", "UnitType", "Offset", "Scale", "Histograms"},
    *{"CategoryNames", "HideNoDataValue"},
}
_OF_SOURCE = {"SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA", "OpenOptions"}


@dataclass(frozen=True, slots=True)
class VrtSource:
    """A file of a band: which of its bands, where it lies on the grid, and which value of it is not drawn.

    `shift` are rows and columns from the file's corner to the grid's, `whole` the file's size where the VRT says it.
    """

    file: Path
    band: int
    box: Box
    shift: tuple[int, int]
    skipped: float | None
    whole: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class VrtBand:
    """A band; the source that GDAL draws last, and that lies on top, stands first."""

    name: str | None
    dtype: np.dtype[np.generic]
    nodata: float | None
    sources: tuple[VrtSource, ...]
    scale: Scale


@dataclass(frozen=True, slots=True)
class Vrt:
    """Contents of a virtual raster."""

    shape: tuple[int, int]
    affine: Affine | None
    srs: str | None
    bands: tuple[VrtBand, ...]

    @property
    def files(self) -> list[Path]:
        """Every file that it names, once."""
        return list(dict.fromkeys(source.file for band in self.bands for source in band.sources))


def read_vrt(path: Path) -> Vrt:
    """Contents of a virtual raster, before any of its files is opened.

    Raises:
        SourceError: it is damaged, leads out of its folder, or holds what isn't read.
        OSError: it can't be read.
    """
    size = path.stat().st_size
    if size > MAX_VRT_BYTES:
        raise SourceError(f"{path}: a VRT of {size} bytes is over {MAX_VRT_BYTES}; name its files as a glob")
    text = path.read_text(encoding="utf-8", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise SourceError(f"{path}: it declares a document type or entities, which are never followed; remove them")
    try:
        return _vrt(ET.fromstring(text), path)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    except (ET.ParseError, ValueError, OverflowError) as error:
        raise SourceError(f"{path}: the VRT can't be parsed ({error}); write it again with gdalbuildvrt") from error


def _vrt(root: ET.Element, path: Path) -> Vrt:
    if root.tag != "VRTDataset":
        raise SourceError(f"it is XML of <{root.tag[:40]}> and no VRT; give an image")
    if kind := root.get("subClass"):
        raise _unread(f"a {kind}")
    _expect_tags(root, _OF_DATASET)
    shape = int(root.get("rasterYSize", "0")), int(root.get("rasterXSize", "0"))
    if not all(0 < side <= MAX_SIDE_PX for side in shape):
        raise SourceError(f"its size of {shape[0]} x {shape[1]} px is none of an image; correct it")
    found = root.findall("VRTRasterBand")
    if not 0 < len(found) <= MAX_BANDS:
        raise SourceError(f"it has {len(found)} bands; an image has 1 to {MAX_BANDS}")
    if sum(1 for _ in root.iter("SourceFilename")) > MAX_SOURCES:
        raise SourceError(f"it names more than {MAX_SOURCES} sources; split it")
    bands = tuple(_band(each, number, path, shape) for number, each in enumerate(found, 1))
    return Vrt(shape, _affine(root.findtext("GeoTransform")), root.findtext("SRS") or None, bands)


def _band(band: ET.Element, number: int, path: Path, shape: tuple[int, int]) -> VrtBand:
    if kind := band.get("subClass"):
        raise _unread(f"band {number} as a {kind}")
    _expect_tags(band, _OF_BAND)
    if (band.findtext("ColorInterp") or "") in {"Alpha", "Palette"}:
        raise _unread(f"{band.findtext('ColorInterp')} as band {number}")
    dtype = _TYPES.get(band.get("dataType", "Byte"))
    if dtype is None:
        raise _unread(f"values of {band.get('dataType', '')[:40]}")
    sources = [_source(each, path, shape) for each in band if each.tag in _SOURCES]
    if not sources:
        raise SourceError(f"band {number} names no file; write it again with gdalbuildvrt")
    return VrtBand(
        band.findtext("Description") or None,
        np.dtype(dtype),
        _number(band.findtext("NoDataValue")),
        tuple(reversed(sources)),
        _scale(band.findtext("Scale"), band.findtext("Offset")),
    )


def _scale(scale: str | None, offset: str | None) -> Scale:
    factor, added = float(scale or 1), float(offset or 0)
    if not (math.isfinite(factor) and math.isfinite(added)) or factor == 0:
        raise SourceError(f"the scale {factor:g} or offset {added:g} of a band is no number that scales it; correct it")
    return factor, added


def _source(source: ET.Element, path: Path, shape: tuple[int, int]) -> VrtSource:
    _expect_tags(source, _OF_SOURCE)
    named = source.find("SourceFilename")
    if named is None:
        raise SourceError("a source names no file; write it again with gdalbuildvrt")
    band = source.findtext("SourceBand") or "1"
    if not band.isdecimal() or not 0 < int(band) <= MAX_BANDS:
        raise _unread(f"band {band[:20]!r} of a source")
    drawn, seen = _rect(source.find("DstRect")), _rect(source.find("SrcRect"))
    if drawn is None or seen is None:
        raise _unread("a source without SrcRect and DstRect")
    if drawn.shape != seen.shape or not Box(0, 0, *shape).contains(drawn):
        raise _unread("a source that is resampled, or reaches beyond the VRT")
    shift = drawn.y0 - seen.y0, drawn.x0 - seen.x0
    skipped = _number(source.findtext("NODATA")) if source.tag == "ComplexSource" else None
    return VrtSource(_contained(named, path), int(band) - 1, drawn, shift, skipped, _size(source))


def _size(source: ET.Element) -> tuple[int, int] | None:
    facts = source.find("SourceProperties")
    named = [None if facts is None else facts.get(name) for name in ("RasterYSize", "RasterXSize")]
    return None if named[0] is None or named[1] is None else (int(named[0]), int(named[1]))


def _contained(named: ET.Element, path: Path) -> Path:
    file = contained(named.text or "", path, "source")
    if file.suffix.lower() == SUFFIX:
        raise _unread(f"another VRT ({file.name[:100]})")
    return file


def _rect(rect: ET.Element | None) -> Box | None:
    """A rectangle of whole pixels."""
    if rect is None:
        return None
    x, y, width, height = (float(rect.get(name, "nan")) for name in ("xOff", "yOff", "xSize", "ySize"))
    whole = [round(side) for side in (y, x, height, width)]
    if any(abs(side - given) > WHOLE_PX for side, given in zip(whole, (y, x, height, width), strict=True)):
        raise _unread("a source that lies between pixels")
    if min(whole[2:]) < 1:
        raise SourceError("a source's rectangle holds no pixel; write it again with gdalbuildvrt")
    return Box(whole[0], whole[1], whole[0] + whole[2], whole[1] + whole[3])


def _affine(text: str | None) -> Affine | None:
    """GDAL's order, of the corner first, in that of an affine."""
    if not text:
        return None
    c, a, b, f, d, e = (float(part) for part in text.split(","))
    if not np.isfinite((a, b, c, d, e, f)).all() or a * e == b * d:
        raise SourceError("its geotransform has no area; correct it")
    return a, b, c, d, e, f


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _expect_tags(element: ET.Element, known: set[str]) -> None:
    for tag in _unknown(element, known):
        raise _unread(f"<{tag[:40]}> in <{element.tag}>")


def _unknown(element: ET.Element, known: set[str]) -> Iterator[str]:
    return (each.tag for each in element if each.tag not in known)


def _unread(what: str) -> SourceError:
    return SourceError(
        f"{what} is not read: only what gdalbuildvrt writes of files on one grid; name the files as a glob or make one "
        "image (gdal_translate -of COG)"
    )
