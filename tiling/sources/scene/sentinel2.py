"""Sentinel-2 scene as ESA delivers it: a `.SAFE` folder of one JPEG 2000 file for each band, in three pixel sizes.

Layout and metadata: Sentinel-2 Products Specification (S2-PDGS-TAS-DI-PSD). Where a granule lies stands in its
`MTD_TL.xml`; of a band that is there in several pixel sizes the finest is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tiling.errors import SourceError
from tiling.sources.facts import Georeference
from tiling.sources.limits import MAX_XML_BYTES

METADATA = re.compile(r"MTD_MSIL(1C|2A)\.xml")
_BAND = re.compile(r"(?P<scene>.+)_(?P<band>B\d\d|B8A)(?:_(?P<metres>\d\d)m)?\.jp2", re.IGNORECASE)
_METRES = {
    **dict.fromkeys(("B02", "B03", "B04", "B08"), 10),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
    **dict.fromkeys(("B01", "B09", "B10"), 60),
}


def sentinel2_folder(path: Path) -> Path | None:
    """The folder of a Sentinel-2 scene, which itself or its metadata names; None of all else."""
    if path.is_dir():
        return path if any(METADATA.fullmatch(each.name) for each in path.iterdir()) else None
    return path.parent if METADATA.fullmatch(path.name) and path.is_file() else None


def sentinel2_band(name: str) -> tuple[str, str] | None:
    """Granule and band of a file by its name; None of all else."""
    named = _BAND.fullmatch(name)
    return None if named is None else (named["scene"].upper(), named["band"].upper())


@dataclass(frozen=True, slots=True)
class Sentinel2Band:
    """A band: its name, its file, where that lies, and its shape where the metadata says it."""

    name: str
    file: Path
    place: Georeference
    shape: tuple[int, int] | None


def sentinel2_bands(folder: Path) -> list[Sentinel2Band]:
    """The bands of a scene in the order of their wavelengths.

    Raises:
        SourceError: the folder is incomplete, or holds several granules.
    """
    granules = sorted(each for each in (folder / "GRANULE").glob("*") if each.is_dir())
    if len(granules) != 1:
        raise SourceError(f"{folder}: holds {len(granules)} granules in GRANULE; give a scene of one")
    root = parsed(granules[0] / "MTD_TL.xml")
    found: dict[str, tuple[int, Path]] = {}
    for file in sorted((granules[0] / "IMG_DATA").rglob("*.jp2")):
        named = _BAND.fullmatch(file.name)
        if named is None:
            continue
        band = named["band"].upper()
        metres = int(named["metres"] or _METRES.get(band, 0))
        if metres and (band not in found or metres < found[band][0]):
            found[band] = metres, file
    _expect_finest(folder, {band: metres for band, (metres, _) in found.items()})
    if not found:
        raise SourceError(f"{folder}: holds no band (…_B04_10m.jp2); unpack the scene's archive again")
    order = sorted(found, key=lambda band: (_METRES.get(band) is None, band.replace("B8A", "B08A")))
    return [
        Sentinel2Band(band, file, _placed(root, metres, granules[0]), _shape(root, metres))
        for band in order
        for metres, file in (found[band],)
    ]


def _expect_finest(folder: Path, found: dict[str, int]) -> None:
    """Refuse a coarser file of a band in place of one that the scene's metadata names and that isn't there."""
    for metadata in (each for each in folder.iterdir() if METADATA.fullmatch(each.name)):
        for element in parsed(metadata).iter("IMAGE_FILE"):
            file = f"{(element.text or '').strip().rpartition('/')[2]}.jp2"
            named = _BAND.fullmatch(file)
            band, metres = ("", 0) if named is None else (named["band"].upper(), int(named["metres"] or 0))
            if 0 < metres < found.get(band, 0):
                raise SourceError(
                    f"{folder}: its {band} of {metres} m ({file[:100]}) is missing, and that of {found[band]} m would "
                    f"be taken for it; unpack the scene's archive again, or name the files, as {band}=FILE"
                )


def parsed(path: Path) -> ET.Element:
    """A file of a scene's metadata.

    Raises:
        SourceError: it is missing, too large, or can't be parsed.
    """
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise SourceError(f"{path}: metadata of more than {MAX_XML_BYTES} bytes; unpack the scene's archive again")
        text = path.read_text(encoding="utf-8", errors="replace")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SourceError(f"{path}: declares a document type or entities, which are never followed; remove them")
        return ET.fromstring(text)
    except FileNotFoundError as error:
        raise SourceError(
            f"{path}: is missing, and says how the scene is to be read; unpack its archive again"
        ) from error
    except (ET.ParseError, ValueError) as error:
        raise SourceError(f"{path}: can't be parsed ({error}); unpack the scene's archive again") from error


def _shape(root: ET.Element, metres: int) -> tuple[int, int] | None:
    """Rows and columns of the pixels of one size."""
    for size in root.iter("Size"):
        rows, cols = size.findtext("NROWS", ""), size.findtext("NCOLS", "")
        if size.get("resolution") == str(metres) and rows.isdecimal() and cols.isdecimal():
            return int(rows), int(cols)
    return None


def _placed(root: ET.Element, metres: int, granule: Path) -> Georeference:
    """Place of the pixels of one size."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    code = next((each.text or "" for each in root.iter("HORIZONTAL_CS_CODE")), "").strip()
    places = [each for each in root.iter("Geoposition") if each.get("resolution") == str(metres)]
    try:
        x, y, dx, dy = (float(places[0].findtext(name) or "nan") for name in ("ULX", "ULY", "XDIM", "YDIM"))
        return Georeference(code, (dx, 0.0, x, 0.0, dy, y), CRS.from_user_input(code).to_wkt(version="WKT2_2019"))
    except (IndexError, ValueError, CRSError) as error:
        raise SourceError(
            f"{granule / 'MTD_TL.xml'}: doesn't say where pixels of {metres} m lie ({error}); unpack the archive again"
        ) from error
