"""Radiometry of a Sentinel-2 scene: which stored values are reflectances, and which is none.

Both stand in `MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`: reflectance is (stored + offset) / quantification. Processing
baselines before 04.00 have no offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tiling.errors import SourceError
from tiling.sources.facts import Scale
from tiling.sources.scene.sentinel2 import METADATA, parsed

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_QUANTIFICATIONS = ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
_OFFSETS = ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")


@dataclass(frozen=True, slots=True)
class Radiometry:
    """Meaning that the metadata gives of stored values; nothing where it is silent."""

    quantification: float | None
    offsets: dict[str, float]
    nodata: float | None

    def scales(self, band: str) -> tuple[Scale, ...]:
        """Scale and offset of a band's reflectances; none where they aren't known."""
        if self.quantification is None:
            return ()
        return ((1 / self.quantification, self.offsets.get(band, 0.0) / self.quantification),)


def sentinel2_metadata(folder: Path) -> list[Path]:
    """The scene's own metadata, of which there is one."""
    return sorted(each for each in folder.iterdir() if METADATA.fullmatch(each.name))[:1]


def sentinel2_radiometry(folder: Path) -> Radiometry:
    """Meaning that a scene's metadata gives of its stored values.

    Raises:
        SourceError: it can't be parsed, or what it says is no number.
    """
    path = sentinel2_metadata(folder)[0]
    root = parsed(path)
    try:
        found = [_number(each) for name in _QUANTIFICATIONS for each in root.iter(name)]
        offsets = {_BANDS[int(each.get("band_id", ""))]: _number(each) for name in _OFFSETS for each in root.iter(name)}
        if found and found[0] <= 0:
            raise ValueError(f"a quantification of {found[0]:g}")
        return Radiometry(found[0] if found else None, offsets, _nodata(root))
    except (ValueError, IndexError) as error:
        raise SourceError(
            f"{path}: says of its stored values what is no number ({error}); unpack the scene's archive again"
        ) from error


def _nodata(root: ET.Element) -> float | None:
    for special in root.iter("Special_Values"):
        if (special.findtext("SPECIAL_VALUE_TEXT") or "").strip().upper() == "NODATA":
            return float(special.findtext("SPECIAL_VALUE_INDEX") or "")
    return None


def _number(element: ET.Element) -> float:
    value = float(element.text or "")
    if not math.isfinite(value):
        raise ValueError(f"{element.tag} of {value}")
    return value
