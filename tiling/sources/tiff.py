"""TIFF in its dialects: which pages are bands, which are levels, and reading boxes from them.

tifffile parses pages and supplies the decoders; segments are read and placed by `plane.py`, so that a box
costs only the segments under it.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tifffile import TiffFile, TiffPage

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.sources import georeference as geo
from tiling.sources import pixel_size as sizes
from tiling.sources.cache import DEFAULT_CACHE_BYTES, SegmentCache
from tiling.sources.directory import Directory, TiffLayout, read_chain, read_directory
from tiling.sources.facts import Georeference, ImageFacts, make_levels
from tiling.sources.limits import MAX_LEVELS, source_errors
from tiling.sources.ome import OmeImage, parse_ome
from tiling.sources.plane import Plane
from tiling.sources.samples import interpret

_CHUNK_PX = 1024
_NODATA_TAG = 42113
_MAX_IMAGEJ_CHANNELS = 64

# tifffile logs every oddity of a file; what matters of them reaches the user as a SourceError.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the file's metadata says about its pages."""

    format: str
    pages: tuple[int, ...]  # one per plane of bands
    band_names: tuple[str, ...]  # empty where the pages' own names serve
    pixel_size: PixelSize | None
    georeference: Georeference | None


class TiffReader:
    """An open TIFF file. Safe to call from several threads at once."""

    def __init__(self, path: Path, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.cache = SegmentCache(cache_bytes)
        try:
            with source_errors(str(path)):
                self._levels, self._facts = _parse(path, self._fd)
        except SourceError:
            os.close(self._fd)
            raise

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> npt.NDArray[np.generic]:
        """Pixels `(y, x, band)` of a box inside the level, decoding only the segments under it."""
        out = np.empty((box.height, box.width, len(self._facts.bands)), self._facts.dtype)
        first = 0
        for number, plane in enumerate(self._levels[level]):
            bands = slice(first, first + plane.band_count)
            plane.read_into(out[..., bands], box, self.cache, level << 16 | number)
            first += plane.band_count
        return out

    def chunk_px(self, level: int) -> tuple[int, int]:
        """Whole segments that make up about 1024 x 1024 px."""
        plane = self._levels[level][0]
        grid = plane.grid
        if plane.reads_rows:
            return min(_CHUNK_PX, grid.height), min(_CHUNK_PX, grid.width)
        wide = min(grid.width, grid.segment_width * max(1, round(_CHUNK_PX / grid.segment_width)))
        tall = grid.segment_height * max(1, round(_CHUNK_PX * _CHUNK_PX / wide / grid.segment_height))
        return min(tall, grid.height), wide

    def close(self) -> None:
        self.cache.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parse(path: Path, fd: int) -> tuple[list[list[Plane]], ImageFacts]:
    layout = TiffLayout.from_file(fd, os.fstat(fd).st_size)
    chain = read_chain(layout)
    # Their special cases would follow lengths that the file claims.
    with TiffFile(path, is_ndpi=False, is_lsm=False, is_scanimage=False, is_stk=False) as tif:
        base = _page(tif, chain[0])
        choice = _choose(path, chain, base)
        levels = [[_plane(tif, chain[index]) for index in choice.pages]]
        for directories in _pyramid(layout, chain, choice):
            levels.append([_plane(tif, directory) for directory in directories])
    planes = levels[0]
    interpretation = planes[0].interpretation
    bands = choice.band_names or interpretation.bands
    if any(plane.interpretation.dtype != interpretation.dtype for level in levels for plane in level):
        raise SourceError("channels or levels have different data types; convert the image")
    shapes = [(level[0].grid.height, level[0].grid.width) for level in levels]
    facts = ImageFacts(
        choice.format,
        bands,
        interpretation.dtype,
        make_levels(shapes, choice.pixel_size),
        interpretation.photometric,
        _nodata(chain[0]),
        choice.georeference,
        interpretation.has_alpha,
    )
    return levels, facts


def _page(tif: TiffFile, directory: Directory) -> TiffPage:
    tif.filehandle.seek(directory.offset)
    return TiffPage(tif, 0)


def _plane(tif: TiffFile, directory: Directory) -> Plane:
    page = _page(tif, directory)
    return Plane(page, directory, interpret(page, directory))


def _choose(path: Path, chain: list[Directory], base: TiffPage) -> _Choice:
    """Tell the dialect, and from it the bands, the pixel size and the georeference."""
    description = base.description
    if base.is_svs:
        return _Choice("aperio-svs", (0,), (), sizes.from_aperio(description), None)
    if base.is_ome:
        return _choose_ome(parse_ome(description, path.name), chain, base)
    resolution = sizes.from_resolution(chain[0], description)
    if base.is_imagej:
        pages = _imagej_channels(description, len(chain))
        names = tuple(str(i + 1) for i in range(len(pages))) if len(pages) > 1 else ()
        return _Choice("imagej-tiff", pages, names, resolution, None)
    reference = geo.read_georeference(chain[0])
    if reference is not None:
        return _Choice("geotiff", (0,), (), geo.ground_pixel_size(reference), reference)
    return _Choice("tiff", (0,), (), resolution, None)


def _choose_ome(image: OmeImage, chain: list[Directory], base: TiffPage) -> _Choice:
    missing = [page for page in image.pages if not 0 <= page < len(chain)]
    if missing:
        raise SourceError(f"OME-XML names page {missing[0]}, the file has {len(chain)}: it is truncated or damaged")
    samples = int(base.samplesperpixel)
    if samples > 1 and len(image.pages) == 1:
        return _Choice("ome-tiff", image.pages, (), image.pixel_size, None)
    if samples > 1:
        raise SourceError(f"{len(image.pages)} channels of {samples} samples are not supported; convert to RGB")
    names = [name or str(i + 1) for i, name in enumerate(image.channel_names)]
    names += [str(i + 1) for i in range(len(names), len(image.pages))]
    if len(set(names)) < len(names):
        names = [str(i + 1) for i in range(len(names))]
    if len(names) == 1 and image.channel_names[:1] != (names[0],):
        names = ["gray"]
    return _Choice("ome-tiff", image.pages, tuple(names), image.pixel_size, None)


def _imagej_channels(description: str, pages: int) -> tuple[int, ...]:
    """ImageJ stores channels as pages, fastest first."""
    for line in description.splitlines():
        if line.startswith("channels="):
            count = int(line.removeprefix("channels="))
            if 1 <= count <= min(pages, _MAX_IMAGEJ_CHANNELS):
                return tuple(range(count))
    return (0,)


def _pyramid(layout: TiffLayout, chain: list[Directory], choice: _Choice) -> list[list[Directory]]:
    """Directories of levels 1 and up, each with one directory per plane, largest first."""
    base = [chain[index] for index in choice.pages]
    found: list[list[Directory]] = []
    for number in range(_subifds(base[0]).size):
        offsets = [_subifds(directory) for directory in base]
        if all(number < len(o) for o in offsets):
            found.append([read_directory(layout, int(o[number])) for o in offsets])
    if len(base) == 1:
        taken = set(choice.pages)
        found += [[other] for index, other in enumerate(chain) if index not in taken]
    levels = [directories for directories in found if _is_level(directories, base)]
    levels.sort(key=lambda directories: -directories[0].width)
    unique: list[list[Directory]] = []
    for directories in levels:
        previous = unique[-1][0] if unique else base[0]
        if directories[0].width < previous.width and directories[0].height <= previous.height:
            unique.append(directories)
    return unique[:MAX_LEVELS]


def _subifds(directory: Directory) -> npt.NDArray[np.generic]:
    offsets = directory.values(330)
    return np.empty(0, np.uint64) if offsets is None else offsets[:MAX_LEVELS]


def _is_level(directories: list[Directory], base: list[Directory]) -> bool:
    """Whether directories are a smaller copy of level 0: same samples, same proportions, not a mask.

    A level either says that it is a reduced image or is tiled like level 0; the thumbnails, labels and macro
    photographs of slides are stripped.
    """
    first, level = base[0], directories[0]
    same = all(
        [d.number(code, 1) for code in (258, 277, 339)] == [first.number(code, 1) for code in (258, 277, 339)]
        and d.number(262, -1) == first.number(262, -1)
        and (d.height, d.width) == (level.height, level.width)
        for d in directories
    )
    reduced = level.is_tiled if first.is_tiled else level.is_reduced
    if not same or not reduced or level.is_mask or not (0 < level.width < first.width and level.height > 0):
        return False
    ratio = max(first.width / level.width, first.height / level.height)
    expected_height, expected_width = first.height / ratio, first.width / ratio
    return (
        abs(level.height - expected_height) <= max(1.5, 0.01 * expected_height)
        and abs(level.width - expected_width) <= max(1.5, 0.01 * expected_width)
        and ratio >= 1.2
    )


def _nodata(directory: Directory) -> float | None:
    """GDAL_NODATA, as a number."""
    text = directory.text(_NODATA_TAG).replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isinf(value) else value
