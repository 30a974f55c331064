"""Landsat scene as the USGS delivers it: a folder of one GeoTIFF for each band beside its `_MTL` metadata.

Names are those of Collection 1 and 2 (LSDS-1822, LSDS-1328): `…_B4.TIF`, `…_SR_B4.TIF`, `…_ST_B10.TIF`. Bands of
quality flags and angles are no measured light and are left out, and so is the panchromatic one, whose grid is finer.
"""

from __future__ import annotations

import re
from pathlib import Path

from tiling.errors import SourceError

_BAND = re.compile(r"(?P<scene>L[A-Z]\d\d_.+?)_(?P<band>(?:SR_|ST_)?B\d{1,2}(?:_VCID_[12])?)\.TIF", re.IGNORECASE)
_METADATA = re.compile(r"L[A-Z]\d\d_.+_MTL\.(txt|xml|json)", re.IGNORECASE)
_PANCHROMATIC = "B8"


def landsat_folder(path: Path) -> Path | None:
    """The folder of a Landsat scene, which itself or its metadata names; None of all else."""
    if path.is_dir():
        return path if any(_METADATA.fullmatch(each.name) for each in path.iterdir()) else None
    return path.parent if _METADATA.fullmatch(path.name) and path.is_file() else None


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
