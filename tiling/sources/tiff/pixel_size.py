"""Pixel sizes from Aperio descriptions, ImageJ descriptions and resolution tags."""

from __future__ import annotations

import math
import re

from tiling.geometry import PixelSize
from tiling.sources.tiff.directory import Directory

# A resolution tag that means a larger pixel is a default for printers (72, 96, 150, 300, 600 dpi are 353 to
# 42 µm), not a measurement: no microscope image has such pixels, and maps carry GeoTIFF tags.
MAX_PLAUSIBLE_UM = 20.0
MIN_PLAUSIBLE_UM = 1e-4

_INCH, _CENTIMETRE = 2, 3
_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)")
_IMAGEJ_UNIT = re.compile(r"^unit=(.*)$", re.MULTILINE)
_IMAGEJ_UM = {"um": 1.0, "micron": 1.0, "microns": 1.0, "µm": 1.0, "\\u00B5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


def plausible_um(y: float, x: float) -> PixelSize | None:
    """A pixel size in µm, or None where no microscope or scanner makes such pixels."""
    if all(math.isfinite(side) and MIN_PLAUSIBLE_UM <= side <= MAX_PLAUSIBLE_UM for side in (y, x)):
        return PixelSize(y, x, "um")
    return None


def from_aperio(description: str) -> PixelSize | None:
    """`|MPP = 0.499` of an Aperio description: µm per pixel, the same along both axes."""
    found = _MPP.search(description)
    if found is None:
        return None
    try:
        mpp = float(found.group(1))
    except ValueError:
        return None
    return plausible_um(mpp, mpp)


def from_resolution(directory: Directory, description: str) -> PixelSize | None:
    """XResolution and YResolution: pixels per inch, per centimetre, or per the unit that ImageJ names."""
    per_x, per_y = directory.values(282), directory.values(283)
    if per_x is None or per_y is None or not per_x.size or not per_y.size:
        return None
    if not (per_x[0] > 0 and per_y[0] > 0):
        return None
    unit_um = {_INCH: 25_400.0, _CENTIMETRE: 10_000.0}.get(directory.number(296, _INCH))
    if description.startswith(("ImageJ=", "SCIFIO=")):
        found = _IMAGEJ_UNIT.search(description)
        unit_um = _IMAGEJ_UM.get(found.group(1).strip()) if found else None
    return None if unit_um is None else plausible_um(unit_um / float(per_y[0]), unit_um / float(per_x[0]))
