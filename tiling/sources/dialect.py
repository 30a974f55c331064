"""Which dialect of TIFF a file is in, and what its metadata says about its pages."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tifffile import TiffPage

from tiling.errors import SourceError
from tiling.geometry import PixelSize
from tiling.sources import georeference as geo
from tiling.sources import pixel_size as sizes
from tiling.sources.beside import NOTHING_BESIDE, Beside
from tiling.sources.directory import Chain, Directory
from tiling.sources.facts import FIRST, Georeference, Moment
from tiling.sources.ome import OmeImage, parse_ome
from tiling.sources.qptiff import find_channels, is_qptiff
from tiling.storage import Place

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
    focal_planes: int = 1
    times: int = 1
    smaller: tuple[tuple[int, ...], ...] = ()  # pages of coarser levels that the metadata names, one per plane
    beside: Beside = NOTHING_BESIDE


def tell_dialect(place: Place, chain: Chain, base: TiffPage, moment: Moment = FIRST) -> Dialect:
    """Tell the dialect from the first page, and read what that dialect keeps where.

    Raises:
        SourceError: metadata that can't be followed, or no such z or t.
    """
    description = base.description
    if base.is_ome:
        return _ome_dialect(parse_ome(description, place.name, moment), chain, base)
    if base.is_imagej:
        return _imagej_dialect(description, chain, moment)
    if is_qptiff(description):
        moment.expect_in(1, 1)
        found = find_channels(chain)
        return Dialect("qptiff", found.pages, found.names, found.pixel_size, None, smaller=found.smaller)
    beside = NOTHING_BESIDE if base.is_svs else Beside.of(place)
    reference = geo.read_georeference(chain[0], beside)
    stack = 1 if base.is_svs or reference is not None else _stack_pages(chain)
    moment.expect_in(stack, 1)
    if base.is_svs:
        return Dialect("aperio-svs", (0,), (), sizes.from_aperio(description), None)
    if reference is not None:
        return Dialect("geotiff", (0,), (), geo.ground_pixel_size(reference), reference, beside=beside)
    resolution = sizes.from_resolution(chain[0], description)
    return Dialect("tiff", (moment.z,), (), resolution, None, stack, stack, beside=beside)


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
        return Dialect(
            "ome-tiff", image.pages, (), image.pixel_size, None, focal_planes=image.focal_planes, times=image.times
        )
    if samples > 1:
        raise SourceError(f"{len(image.pages)} channels of {samples} samples are not supported; convert to RGB")
    names = [name or str(i + 1) for i, name in enumerate(image.channel_names)]
    names += [str(i + 1) for i in range(len(names), len(image.pages))]
    if len(set(names)) < len(names):
        names = [str(i + 1) for i in range(len(names))]
    if len(names) == 1 and image.channel_names[:1] != (names[0],):
        names = ["gray"]
    planes, times = image.focal_planes, image.times
    return Dialect("ome-tiff", image.pages, tuple(names), image.pixel_size, None, focal_planes=planes, times=times)


def _imagej_dialect(description: str, chain: Chain, moment: Moment) -> Dialect:
    """ImageJ stores channels, focal planes and times as pages, the first of these fastest."""
    channels, planes, times = (_imagej_count(description, name) for name in ("channels", "slices", "frames"))
    if not 1 <= channels <= min(len(chain), _MAX_IMAGEJ_CHANNELS):
        channels = 1
    if channels * planes * times > len(chain):
        planes = times = 1
    moment.expect_in(planes, times)
    first = channels * (moment.z + planes * moment.t)
    pages = tuple(range(first, first + channels))
    names = tuple(str(i + 1) for i in range(channels)) if channels > 1 else ()
    resolution = sizes.from_resolution(chain[0], description)
    return Dialect("imagej-tiff", pages, names, resolution, None, focal_planes=planes, times=times)


def _imagej_count(description: str, name: str) -> int:
    for line in description.splitlines():
        if line.startswith(f"{name}="):
            return max(1, int(line.removeprefix(f"{name}=")))
    return 1


def read_nodata(directory: Directory) -> float | None:
    """GDAL_NODATA, as a number."""
    text = directory.text(_NODATA_TAG).replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isinf(value) else value
