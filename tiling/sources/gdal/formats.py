"""Formats that GDAL alone reads here, and the files beside one that count as a part of it.

Each is open to one of GDAL's drivers, which reads local files and nothing else: none that reaches the network, runs
code, or is led by its file to images of other formats. Formats that readers of our own claim are no part of the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiling.sources.tiff.sidecars import world_names
from tiling.storage.place import Place


@dataclass(frozen=True, slots=True)
class GdalFormat:
    """One format: its name in a run's card, the driver that may open it, and how it begins."""

    name: str
    driver: str
    magic: tuple[bytes, ...] = ()
    suffixes: tuple[str, ...] = ()
    """Suffixes of a format that doesn't say what it is."""
    header: bytes | None = None
    """Beginning of the `.hdr` file beside it, of a format that is raw pixels."""


FORMATS = (
    GdalFormat("erdas", "HFA", (b"EHFA_HEADER_TAG",)),
    GdalFormat("netcdf", "netCDF", (b"CDF\x01", b"CDF\x02", b"CDF\x05")),
    GdalFormat("hdf5", "netCDF", (b"\x89HDF\r\n\x1a\n",)),
    # A header may be another file's of that name, and is asked after what says itself what it is.
    GdalFormat("envi", "ENVI", header=b"ENVI"),
    GdalFormat("ehdr", "EHdr", suffixes=(".bil", ".bip", ".bsq", ".flt"), header=b""),
    GdalFormat("bmp", "BMP", (b"BM",)),
    GdalFormat("arcinfo-grid", "AAIGrid", (b"ncols", b"NCOLS")),
)
NAMES = frozenset(each.name for each in FORMATS)

_BESIDE = (".aux.xml", ".aux", ".ovr", ".msk", ".hdr", ".ige", ".rrd", ".rde", ".prj", ".clr", ".stx")


def gdal_format(place: Place, head: bytes) -> GdalFormat | None:
    """The format of a file by its first bytes, or the header beside it; None of what GDAL isn't asked for."""
    suffix = Path(place.name).suffix.lower()
    for each in FORMATS:
        if each.suffixes and suffix not in each.suffixes:
            continue
        if each.header is not None and not _has_header(place, each.header):
            continue
        if not each.magic or head.startswith(each.magic):
            return each
    return None


def files_beside(path: Path) -> list[Path]:
    """Files beside an image that GDAL may read with it, in a fixed order: no others are a part of it."""
    stems = (path.stem.lower(), path.name.lower())
    wanted = {stem + suffix for stem in stems for suffix in _BESIDE} | {name.lower() for name in world_names(path.name)}
    return sorted(
        each for each in path.parent.iterdir() if each.name.lower() in wanted and each != path and each.is_file()
    )


def _has_header(path: Place, start: bytes) -> bool:
    if not isinstance(path, Path):
        return False
    for header in (path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")):
        if header != path and header.is_file():
            with header.open("rb") as file:
                return file.read(len(start)) == start
    return False
