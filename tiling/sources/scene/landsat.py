"""Landsat scene as the USGS delivers it: a folder of one GeoTIFF for each band beside its `_MTL` metadata.

Names are those of Collection 1 and 2 (LSDS-1822, LSDS-1328): `…_B4.TIF`, `…_SR_B4.TIF`, `…_ST_B10.TIF`. Bands of
quality flags and angles are no measured light and are left out, and so is the panchromatic one, whose grid is finer.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from tiling.errors import SourceError
from tiling.sources.facts import Scale
from tiling.sources.limits import MAX_XML_BYTES

_BAND = re.compile(r"(?P<scene>L[A-Z]\d\d_.+?)_(?P<band>(?:SR_|ST_)?B\d{1,2}(?:_VCID_[12])?)\.TIF", re.IGNORECASE)
_METADATA = re.compile(r"L[A-Z]\d\d_.+_MTL\.(txt|xml|json)", re.IGNORECASE)
_RESCALING = re.compile(r"(?P<kind>REFLECTANCE|RADIANCE|TEMPERATURE)_(?P<what>MULT|ADD)_BAND_(?P<band>\w{1,20})")
_GROUPS = {
    "LEVEL1_RADIOMETRIC_RESCALING": "",
    "RADIOMETRIC_RESCALING": "",
    "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": "SR_",
    "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": "ST_",
}
"""Groups that say how values are stored, and what the names of their bands begin with."""
_PANCHROMATIC = "B8"


def landsat_folder(path: Path) -> Path | None:
    """The folder of a Landsat scene, which itself or its metadata names; None of all else."""
    if path.is_dir():
        return path if any(_METADATA.fullmatch(each.name) for each in path.iterdir()) else None
    return path.parent if _METADATA.fullmatch(path.name) and path.is_file() else None


def landsat_metadata(folder: Path) -> list[Path]:
    """The file that says what stored values mean: the `_MTL.txt`, which the USGS writes beside the others."""
    return sorted(
        each
        for each in folder.iterdir()
        if _METADATA.fullmatch(each.name) and each.suffix.lower() == ".txt" and each.stat().st_size <= MAX_XML_BYTES
    )[:1]


def landsat_scales(folder: Path) -> dict[str, tuple[Scale, ...]]:
    """Scale and offset of each band that the metadata names: to reflectance, kelvin, or radiance of a thermal band.

    That of level 2 says how level 1 was scaled as well, in a group of its own.
    """
    found: dict[str, dict[str, float]] = {"MULT": {}, "ADD": {}}
    group = ""
    for file in landsat_metadata(folder):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = (part.strip() for part in line.partition("="))
            if key == "GROUP":
                group = value
            named = _RESCALING.fullmatch(key)
            if named is None or group not in _GROUPS:
                continue
            band = named["band"] if named["kind"] == "TEMPERATURE" else _GROUPS[group] + "B" + named["band"]
            # Of a band with both, reflectance stands after radiance and wins.
            found[named["what"]][band] = _number(value, line, file)
    return {band: ((scale, found["ADD"].get(band, 0.0)),) for band, scale in found["MULT"].items()}


def _number(value: str, line: str, file: Path) -> float:
    try:
        number = float(value)
        if math.isfinite(number) and (number != 0 or "_ADD_" in line):
            return number
    except ValueError:
        pass
    raise SourceError(f"{file}: {line.strip()[:100]!r} holds no number that scales a band; download it again")


def landsat_band(name: str) -> tuple[str, str] | None:
    """Scene and band of a file by its name; None of all else."""
    named = _BAND.fullmatch(name)
    return None if named is None else (named["scene"].upper(), named["band"].upper())


def landsat_bands(folder: Path) -> list[tuple[str, Path]]:
    """The bands of a scene by number.

    Raises:
        SourceError: the folder holds none, or those of several scenes.
    """
    found: dict[tuple[int, str], Path] = {}
    scenes: set[str] = set()
    for file in sorted(folder.iterdir()):
        named = _BAND.fullmatch(file.name)
        band = named["band"].upper() if named else None
        if named is None or band is None or band == _PANCHROMATIC:
            continue
        scenes.add(named["scene"].upper())
        number = re.search(r"B(\d+)", band)
        found[int(number[1]) if number else 0, band] = file
    if len(scenes) > 1:
        raise SourceError(f"{folder}: holds {len(scenes)} Landsat scenes; give each a folder of its own")
    if not found:
        raise SourceError(f"{folder}: holds Landsat metadata and no band (…_B4.TIF); unpack the scene's archive again")
    return [(band, file) for (_, band), file in sorted(found.items())]
