"""Which dialect of TIFF a file is in, and what its metadata says about its pages."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tifffile import TiffPage

from tiling.errors import SourceError
from tiling.geometry import PixelSize
from tiling.sources import georeference as geo
from tiling.sources import pixel_size as sizes
from tiling.sources.directory import Chain, Directory
from tiling.sources.facts import Georeference
from tiling.sources.ome import OmeImage, parse_ome

_NODATA_TAG = 42113
_MAX_IMAGEJ_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class Dialect:
    """A file's format, the pages that hold its bands, and what its metadata says of them."""

    format: str
    pages: tuple[int, ...]  # one per plane of bands
    band_names: tuple[str, ...]  # empty where the pages' own names serve
    pixel_size: PixelSize | None
    georeference: Georeference | None
    stack_pages: int = 1  # where nothing says what the pages are, and the second is as large as the first


def tell_dialect(name: str, chain: Chain, base: TiffPage) -> Dialect:
    """Tell the dialect from the first page, and read what that dialect keeps where."""
    description = base.description
    if base.is_svs:
        return Dialect("aperio-svs", (0,), (), sizes.from_aperio(description), None)
    if base.is_ome:
        return _ome_dialect(parse_ome(description, name), chain, base)
    resolution = sizes.from_resolution(chain[0], description)
    if base.is_imagej:
        pages = _imagej_channels(description, len(chain))
        names = tuple(str(i + 1) for i in range(len(pages))) if len(pages) > 1 else ()
        return Dialect("imagej-tiff", pages, names, resolution, None)
    reference = geo.read_georeference(chain[0])
    if reference is not None:
        return Dialect("geotiff", (0,), (), geo.ground_pixel_size(reference), reference)
    return Dialect("tiff", (0,), (), resolution, None, _stack_pages(chain))


def _stack_pages(chain: Chain) -> int:
    """All pages of the file if the second is as large as the first, else 1."""
    if len(chain) == 1:
        return 1
    first, second = chain[0], chain[1]
    return len(chain) if (second.height, second.width) == (first.height, first.width) and not second.is_mask else 1


def _ome_dialect(image: OmeImage, chain: Chain, base: TiffPage) -> Dialect:
    missing = [page for page in image.pages if not 0 <= page < len(chain)]
    if missing:
        raise SourceError(f"OME-XML names page {missing[0]}, the file has {len(chain)}: it is truncated or damaged")
    samples = int(base.samplesperpixel)
    if samples > 1 and len(image.pages) == 1:
        return Dialect("ome-tiff", image.pages, (), image.pixel_size, None)
    if samples > 1:
        raise SourceError(f"{len(image.pages)} channels of {samples} samples are not supported; convert to RGB")
    names = [name or str(i + 1) for i, name in enumerate(image.channel_names)]
    names += [str(i + 1) for i in range(len(names), len(image.pages))]
    if len(set(names)) < len(names):
        names = [str(i + 1) for i in range(len(names))]
    if len(names) == 1 and image.channel_names[:1] != (names[0],):
        names = ["gray"]
    return Dialect("ome-tiff", image.pages, tuple(names), image.pixel_size, None)


def _imagej_channels(description: str, pages: int) -> tuple[int, ...]:
    """ImageJ stores channels as pages, fastest first."""
    for line in description.splitlines():
        if line.startswith("channels="):
            count = int(line.removeprefix("channels="))
            if 1 <= count <= min(pages, _MAX_IMAGEJ_CHANNELS):
                return tuple(range(count))
    return (0,)


def read_nodata(directory: Directory) -> float | None:
    """GDAL_NODATA, as a number."""
    text = directory.text(_NODATA_TAG).replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isinf(value) else value
