"""Dialect of a TIFF file, and what its metadata says about its pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tifffile import TiffPage

from tiling.errors import SourceError
from tiling.geometry import PixelSize
from tiling.sources.facts import FIRST, Georeference, Moment
from tiling.sources.series import FileImage, choose_image
from tiling.sources.tiff import georeference as geo
from tiling.sources.tiff import pixel_size as sizes
from tiling.sources.tiff.directory import Chain, Directory
from tiling.sources.tiff.levels import LevelRule
from tiling.sources.tiff.ome import OmeImage, parse_ome
from tiling.sources.tiff.pages import PageImage, expect_channels, images_in
from tiling.sources.tiff.qptiff import find_channels, is_qptiff
from tiling.sources.tiff.sidecars import NO_SIDECARS, Sidecars
from tiling.storage.place import Place

_NODATA_TAG, _SAMPLES_TAG = 42113, 277
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
    following: tuple[int, ...] = ()  # pages that belong to the image: its smaller copies and masks
    rule: LevelRule = LevelRule.NAMED
    images: tuple[FileImage, ...] = ()
    series: int = 0
    is_indexed: bool = False  # palettes are how channels are shown, not what they are
    sidecars: Sidecars = NO_SIDECARS


def detect_dialect(place: Place, chain: Chain, base: TiffPage, moment: Moment = FIRST) -> Dialect:
    """Detect the dialect from the first page, and read its metadata.

    Raises:
        SourceError: metadata that can't be followed, or no such z or t.
    """
    description = base.description
    if base.is_ome:
        return _placed(_ome_dialect(parse_ome(description, place.name, moment), chain), chain)
    if base.is_imagej:
        return _placed(_imagej_dialect(description, chain, moment), chain)
    if is_qptiff(description):
        moment.expect_in(1, 1)
        moment.expect_one_image()
        channels = find_channels(chain)
        return Dialect("qptiff", channels.pages, channels.names, channels.pixel_size, None, smaller=channels.smaller)
    if base.is_svs:
        moment.expect_in(1, 1)
        moment.expect_one_image()
        size, others = sizes.from_aperio(description), tuple(range(1, len(chain)))
        found = Dialect("aperio-svs", (0,), (), size, None, following=others, rule=LevelRule.APERIO)
        return _placed(found, chain)
    return _plain_dialect(place, chain, description, moment)


def _placed(dialect: Dialect, chain: Chain) -> Dialect:
    """With the place on the earth that the image's own tags name, as in any TIFF: pixels are then measured there."""
    reference = geo.read_georeference(chain[dialect.pages[0]])
    if reference is None or reference.wkt is None:
        return dialect
    size = geo.ground_pixel_size(reference) or dialect.pixel_size
    return replace(dialect, georeference=reference, pixel_size=size)


def _plain_dialect(place: Place, chain: Chain, description: str, moment: Moment) -> Dialect:
    """A TIFF of which pages alone say what they are, with or without a place on the earth."""
    found, beside = images_in(chain), Sidecars.of(place)
    if geo.read_georeference(chain[0], beside) is not None:
        found = [each for image in found for each in _as_separate_images(image)]
    of_image = [beside if image.pages[0] == 0 else NO_SIDECARS for image in found]  # files beside are of the first
    references = [
        geo.read_georeference(chain[image.pages[0]], each) for image, each in zip(found, of_image, strict=True)
    ]
    message = [
        _told(image, chain[image.pages[0]], reference, description)
        for image, reference in zip(found, references, strict=True)
    ]
    series = choose_image(message, moment.series)
    image, reference = found[series], references[series]
    numbers, focal_planes, times, names = _planes_of(image, moment)
    pages = tuple(image.pages[number] for number in numbers)
    is_stack = len(names) == 0 and len(image.pages) > 1
    return Dialect(
        "tiff" if reference is None else "geotiff",
        pages,
        names,
        message[series].pixel_size,
        reference,
        stack_pages=len(image.pages) if is_stack and image.shape is None else 1,
        focal_planes=focal_planes,
        times=times,
        following=image.following[numbers[0]] if len(numbers) == 1 else (),
        rule=LevelRule.FLAGGED,
        images=tuple(message) if len(message) > 1 else (),
        series=series,
        is_indexed=len(numbers) > 1,
        sidecars=of_image[series],
    )


def _as_separate_images(image: PageImage) -> list[PageImage]:
    """Pages of a map as images of their own, as GDAL has them, where nothing says that they are channels."""
    if image.shape is not None and image.shape.axes:
        return [image]
    pairs = zip(image.pages, image.following, strict=True)
    return [
        PageImage(image.name if page == image.pages[0] else f"page {page}", (page,), (after,), None)
        for page, after in pairs
    ]


def _told(image: PageImage, page: Directory, reference: Georeference | None, description: str) -> FileImage:
    size = sizes.from_resolution(page, description) if reference is None else geo.ground_pixel_size(reference)
    return FileImage(image.name, page.height, page.width, size)


def _planes_of(image: PageImage, moment: Moment) -> tuple[list[int], int, int, tuple[str, ...]]:
    """Numbers of an image's pages that are read; how many focal planes and times there are; names of channels."""
    shape = image.shape
    lengths = dict(zip(shape.axes, shape.lengths, strict=False)) if shape is not None else {}
    letters = {axis for axis, length in lengths.items() if length > 1}
    if shape is None or not shape.axes or not letters <= set("CZT") or len(set(shape.axes)) < len(shape.axes):
        moment.expect_in(len(image.pages), 1)
        return [moment.z], len(image.pages), 1, ()
    if "C" in letters:
        expect_channels(image, shape)
    if shape.pages > len(image.pages):
        moment.expect_in(len(image.pages), 1)
        return [moment.z], len(image.pages), 1, ()
    moment.expect_in(shape.length("Z"), shape.length("T"))
    numbers = shape.channels_at(moment)
    names = () if len(numbers) == 1 else _unique(shape.channel_names, len(numbers))
    return numbers, shape.length("Z"), shape.length("T"), names


def _unique(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of channels, or numbers from 1 where some are missing or equal."""
    if len(names) == count and all(names) and len({name.casefold() for name in names}) == count:
        return tuple(names)
    return tuple(str(number + 1) for number in range(count))


def _ome_dialect(image: OmeImage, chain: Chain) -> Dialect:
    missing = [page for page in image.pages if not 0 <= page < len(chain)]
    if missing:
        raise SourceError(f"OME-XML names page {missing[0]}, the file has {len(chain)}: it is truncated or damaged")
    page = chain[image.pages[0]]
    if min(image.shape) > 0 and (page.height, page.width) != image.shape:
        raise SourceError(
            f"OME-XML says that the image is {image.shape[1]} x {image.shape[0]} px and its page {image.pages[0]} is "
            f"{page.width} x {page.height}: another image's pixels would be taken; the file is damaged"
        )
    samples = page.number(_SAMPLES_TAG, 1)
    message = Dialect(
        "ome-tiff",
        image.pages,
        (),
        image.pixel_size,
        None,
        focal_planes=image.focal_planes,
        times=image.times,
        rule=LevelRule.SUBIFDS,
        images=image.images,
        series=image.series,
        is_indexed=True,
    )
    if samples > 1 and len(image.pages) == 1:
        return message
    if samples > 1:
        raise SourceError(f"{len(image.pages)} channels of {samples} samples are not supported; convert to RGB")
    names = [name or str(i + 1) for i, name in enumerate(image.channel_names)]
    names += [str(i + 1) for i in range(len(names), len(image.pages))]
    if len(set(names)) < len(names):
        names = [str(i + 1) for i in range(len(names))]
    if len(names) == 1 and image.channel_names[:1] != (names[0],):
        names = ["gray"]
    return replace(message, band_names=tuple(names))


def _imagej_dialect(description: str, chain: Chain, moment: Moment) -> Dialect:
    """ImageJ stores channels, focal planes and times as pages, the first of these fastest."""
    channels, planes, times = (_imagej_count(description, name) for name in ("channels", "slices", "frames"))
    if channels > _MAX_IMAGEJ_CHANNELS:
        raise SourceError(f"ImageJ names {channels} channels; at most {_MAX_IMAGEJ_CHANNELS} are read")
    moment.expect_one_image()
    if channels * planes * times > len(chain):
        raise SourceError(
            f"ImageJ names {channels * planes * times} pages and {len(chain)} can be found: ImageJ keeps stacks over "
            "4 GB in one page, of which others would be left out; save it as OME-TIFF or BigTIFF"
        )
    moment.expect_in(planes, times)
    first = channels * (moment.z + planes * moment.t)
    pages = tuple(range(first, first + channels))
    names = tuple(str(i + 1) for i in range(channels)) if channels > 1 else ()
    resolution = sizes.from_resolution(chain[0], description)
    return Dialect(
        "imagej-tiff",
        pages,
        names,
        resolution,
        None,
        focal_planes=planes,
        times=times,
        rule=LevelRule.FLAGGED,
        is_indexed=channels > 1,
    )


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
