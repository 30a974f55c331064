"""Masks of many runs as one raster: a GDAL VRT that draws their COGs where they lie, without a pixel of its own.

One VRT holds masks of one CRS whose pixels lie on one grid; those of another have one of their own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio
from rasterio.errors import RasterioError

from tiling.escaping import plain
from tiling.runs.mask import NOT_PREDICTED

logger = logging.getLogger(__name__)

WHOLE_PX = 0.01
"""By how much of a pixel masks may lie off each other's grid and still be drawn as they are."""
MAX_SIDE_PX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Mask:
    """A COG: its name from the VRT's folder, its shape, and where it lies."""

    name: str
    shape: tuple[int, int]
    affine: tuple[float, float, float, float, float, float]
    crs: Any
    colors: dict[int, tuple[int, int, int, int]]
    names: dict[int, str]

    def corner_on(self, other: _Mask) -> tuple[float, float]:
        """Its first pixel's corner in another's pixels, y before x."""
        a, b, c, d, e, f = other.affine
        x, y, area = self.affine[2] - c, self.affine[5] - f, a * e - b * d
        return (a * y - d * x) / area, (e * x - b * y) / area

    def lies_with(self, other: _Mask) -> bool:
        """True if pixels of both are those of one grid."""
        if self.crs != other.crs:
            return False
        (a, b, _, d, e, _), (p, q, _, s, t, _) = self.affine, other.affine
        side = math.sqrt(abs(p * t - q * s))
        most = max(*self.shape, *other.shape)
        if max(abs(a - p), abs(b - q), abs(d - s), abs(e - t)) * most > WHOLE_PX * side:
            return False
        corner = self.corner_on(other)
        # So that no two of one raster are further from each other than GDAL counts pixels: both are near the first.
        is_near = max(*map(abs, corner), most) < MAX_SIDE_PX // 4
        return is_near and all(abs(value - round(value)) < WHOLE_PX for value in corner)


def mosaics(folder: Path, masks: Sequence[Path]) -> list[bytes]:
    """VRTs of masks below a folder in which they are to lie, that of the most masks first.

    The first mask lies on top where it holds a label. What can't be read, or says no place, is left out.
    """
    groups: list[list[_Mask]] = []
    for path in masks:
        mask = _looked_at(path, folder)
        if mask is None:
            continue
        group = next((each for each in groups if mask.lies_with(each[0])), None)
        if group is None:
            groups.append([mask])
        else:
            group.append(mask)
    # Of equal numbers the first stays first.
    return [_vrt(group) for group in sorted(groups, key=lambda group: -len(group))]


def _looked_at(path: Path, folder: Path) -> _Mask | None:
    try:
        with rasterio.open(path, driver="GTiff") as file:
            if file.crs is None or file.gcps[0] or file.transform.is_identity:
                return None
            colors = file.colormap(1)
            tags, name = file.tags(), path.relative_to(folder).as_posix()
            names = {label: plain(tags[f"CLASS_{label}"]) for label in colors if f"CLASS_{label}" in tags}
            a, b, c, d, e, f = (float(value) for value in tuple(file.transform)[:6])
            if not 0 < abs(a * e - b * d) < math.inf or not math.isfinite(c + f):
                raise ValueError("it says no place that can be")
            if plain(name) != name:
                raise ValueError("XML has no place for its name")
            return _Mask(name, (file.height, file.width), (a, b, c, d, e, f), file.crs, colors, names)
    except (RasterioError, ValueError, OSError) as error:
        logger.warning("mask left out of the mosaic", extra={"mask": str(path), "reason": str(error)})
        return None


def _vrt(masks: list[_Mask]) -> bytes:
    first = masks[0]
    corners = [tuple(round(value) for value in mask.corner_on(first)) for mask in masks]
    top, left = min(y for y, _ in corners), min(x for _, x in corners)
    sides = [(y + mask.shape[0] - top, x + mask.shape[1] - left) for mask, (y, x) in zip(masks, corners, strict=True)]
    height, width = max(y for y, _ in sides), max(x for _, x in sides)
    a, b, c, d, e, f = first.affine
    place = c + a * left + b * top, a, b, f + d * left + e * top, d, e
    vrt = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(vrt, "SRS").text = first.crs.to_wkt()
    ET.SubElement(vrt, "GeoTransform").text = ", ".join(map(repr, place))
    band = ET.SubElement(vrt, "VRTRasterBand", dataType="Byte", band="1")
    ET.SubElement(band, "NoDataValue").text = str(NOT_PREDICTED)
    ET.SubElement(band, "ColorInterp").text = "Palette"
    table, categories = ET.SubElement(band, "ColorTable"), ET.SubElement(band, "CategoryNames")
    for label in range(256):
        red, green, blue, alpha = map(str, first.colors.get(label, (0, 0, 0, 255)))
        ET.SubElement(table, "Entry", c1=red, c2=green, c3=blue, c4=alpha)
        if label <= max(first.names, default=-1):
            ET.SubElement(categories, "Category").text = first.names.get(label, "")
    # GDAL draws one after another, so that the last lies on top.
    for mask, (y, x) in reversed(list(zip(masks, corners, strict=True))):
        _draw(band, mask, y - top, x - left)
    ET.indent(vrt)
    return ET.tostring(vrt)


def _draw(band: ET.Element, mask: _Mask, y: int, x: int) -> None:
    """Draw a mask, its gaps not at all."""
    tall, wide = map(str, mask.shape)
    source = ET.SubElement(band, "ComplexSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = mask.name
    ET.SubElement(source, "SourceBand").text = "1"
    ET.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=wide, ySize=tall)
    ET.SubElement(source, "DstRect", xOff=str(x), yOff=str(y), xSize=wide, ySize=tall)
    ET.SubElement(source, "NODATA").text = str(NOT_PREDICTED)
