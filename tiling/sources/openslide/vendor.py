"""Vendor formats: files that are slides in a scanner's own format, and the other files that belong to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tiling.errors import SourceError
from tiling.sources.file import ImageFile
from tiling.sources.gdal.formats import NAMES as READ_BY_GDAL
from tiling.sources.gdal.formats import files_beside
from tiling.sources.tiff.directory import TiffLayout, read_directory
from tiling.sources.tiff.sidecars import pixel_sidecars

TIFFS_WITH_SIDECARS = {"tiff", "geotiff"}
DICOM_MAGIC_AT = 128
_HEAD_BYTES = 64 * 1024
_BY_SUFFIX = {".ndpi": "NDPI", ".mrxs": "MRXS", ".scn": "SCN", ".bif": "BIF", ".vms": "VMS", ".vmu": "VMU"}
_SQLITE_MAGIC = b"SQLite format 3\0"
_CZI_MAGIC = b"ZISRAWFILE"
_NDPI_TAG, _DESCRIPTION_TAG, _SOFTWARE_TAG, _XMP_TAG = 65420, 270, 305, 700
_SERIES_TAG = b"\x20\x00\x0e\x00"
_UID_BYTES = 80


def vendor_format(name: str, file: ImageFile, head: bytes) -> str | None:
    """The name of the scanner's format that a file is in, by its content and, where that can't tell, its suffix.

    None for all else, Aperio's SVS included: it is a TIFF like others.
    """
    suffix = Path(name).suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if head.startswith(_SQLITE_MAGIC) and suffix == ".svslide":
        return "Sakura"
    if head.startswith(_CZI_MAGIC):
        return "CZI"
    if head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return _tiff_format(file)
    return "DICOM" if file.read(4, DICOM_MAGIC_AT) == b"DICM" else None


def _tiff_format(file: ImageFile) -> str | None:
    """Formats that are TIFF on the outside, and come out wrong when they are read as one."""
    try:
        layout = TiffLayout.from_file(file)
        first = read_directory(layout, layout.first_offset)
    except SourceError:
        return None  # the reader of TIFF says what is wrong with it
    if _NDPI_TAG in first.entries:
        return "NDPI"
    description, software = first.text(_DESCRIPTION_TAG)[:_HEAD_BYTES], first.text(_SOFTWARE_TAG)[:200]
    if "leica-microsystems.com/scn/" in description:
        return "SCN"
    if software.startswith("Philips") and "DPUfsImport" in description:
        return "Philips"
    if software.startswith("MedScan"):
        return "Trestle"
    return "BIF" if "<iScan" in first.text(_XMP_TAG)[:_HEAD_BYTES] else None


def companions(path: Path, vendor: str) -> list[Path]:
    """The other files of a slide, of which its content is a part, in a fixed order."""
    folder = path.with_suffix("")
    if vendor == "mirax":
        return sorted(each for each in folder.rglob("*") if each.is_file()) if folder.is_dir() else []
    if vendor == "dicom":
        series = _series(path)
        return [each for each in _siblings(path) if series and _series(each) == series]
    if vendor == "hamamatsu" and path.suffix.lower() in {".vms", ".vmu"}:
        text = path.read_bytes()[:_HEAD_BYTES].decode("latin-1")
        named = {line.partition("=")[2].strip() for line in text.splitlines()}
        return [each for each in _siblings(path) if each.name in named]
    if vendor in TIFFS_WITH_SIDECARS:
        return [each for each in pixel_sidecars(path) if isinstance(each, Path)]
    return files_beside(path) if vendor in READ_BY_GDAL else []


def _siblings(path: Path) -> Iterator[Path]:
    return (each for each in sorted(path.parent.iterdir()) if each.is_file() and each != path)


def _series(path: Path) -> bytes:
    """The series' UID of a DICOM file in little endian, as it stands there; empty where there is none."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[DICOM_MAGIC_AT : DICOM_MAGIC_AT + 4] != b"DICM":
        return b""
    at = head.find(_SERIES_TAG)
    if at < 0:
        return b""
    explicit = head[at + 4 : at + 6] == b"UI"
    length = int.from_bytes(head[at + 6 : at + 8] if explicit else head[at + 4 : at + 8], "little")
    return head[at + 8 : at + 8 + min(length, _UID_BYTES)]
