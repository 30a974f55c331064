"""An open TIFF file: boxes of pixels from any of its levels.

tifffile parses pages and supplies the decoders; segments are read and placed by `plane.py`, so that a box
costs only the segments under it.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from tifffile import TiffFile, TiffPage

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.cache import DEFAULT_CACHE_BYTES, SegmentCache
from tiling.sources.damage import DamagedSegment
from tiling.sources.facts import FIRST, ImageFacts, Moment, make_levels
from tiling.sources.file import ImageFile
from tiling.sources.limits import MAX_ALL_SEGMENTS, source_errors
from tiling.sources.matching import matched
from tiling.sources.orientation import known_orientation
from tiling.sources.tiff.descriptions import described, scales
from tiling.sources.tiff.dialect import Dialect, detect_dialect, read_nodata
from tiling.sources.tiff.directory import Chain, Directory, TiffLayout
from tiling.sources.tiff.georeference import sidecar_nodata
from tiling.sources.tiff.levels import find_levels, find_masks
from tiling.sources.tiff.nodata import interpret_tuple, nodata_in_bands, nodata_tuple
from tiling.sources.tiff.plane import Plane
from tiling.sources.tiff.samples import interpret, interpret_alpha, interpret_index
from tiling.sources.tiff.sidecar_planes import sidecar_levels, sidecar_masks
from tiling.sources.tiff.sidecars import Sidecars
from tiling.sources.tiff.unwritten import fill, has_gaps, is_patchy, written
from tiling.storage.place import Place

_CHUNK_PX = 1024
_FILLED = "aperio-svs"  # the dialect in which a finer level stands for what a coarser one lacks
_SAMPLES, _ORIENTATION = 277, 274
_MASK_KEY = 0xFFFF  # no plane of bands has that number

# tifffile logs every oddity of a file; what matters of them reaches the user as a SourceError.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


_DECODED_AT_ONCE = 4


class TiffReader:
    """An open TIFF file. Safe to call from several threads at once."""

    def __init__(
        self, place: Place, file: ImageFile, moment: Moment = FIRST, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        self._file = file
        self.cache = SegmentCache(cache_bytes)
        with source_errors(str(place)):
            self._levels, self._masks, self._facts = _parse(place, file, moment, cache_bytes)
        # A level of a slide is filled from the finer one, so that only the finest can lack data.
        self._fills = self._facts.format == _FILLED
        self._has_gaps = any(has_gaps(planes) for planes in (self._levels[:1] if self._fills else self._levels))

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
        if level > 0 and self._fills and has_gaps(self._levels[level]):
            finer = self._levels[level - 1][0].size_px
            fill(out, box, self._levels[level], finer, lambda seen: self.read(level - 1, seen))
        return out

    def evict(self, level: int, box: Box) -> None:
        """Drop what is held decoded of the segments that touch a box and end inside of it (`ImageSource.evict`)."""
        for number, plane in enumerate(self._levels[level]):
            plane.evict(box, self.cache, level << 16 | number)
        mask = self._masks[level]
        if mask is not None:
            mask.evict(box, self.cache, level << 16 | _MASK_KEY)

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels of a box that hold data: by the level's mask or alpha channel, and in written segments."""
        plane = self._masks[level]
        held = self._written(level, box)
        if plane is None:
            return held
        out = np.empty((*box.shape, 1), plane.interpretation.dtype)
        plane.read_into(out, box, self.cache, level << 16 | _MASK_KEY)
        data = out[..., 0].astype(np.bool_)
        return data if held is None else data & held

    def _written(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels that were written, at that level or at a finer one that fills it; None where all were."""
        if not self._has_gaps:
            return None
        held = written(self._levels[level], box)
        if level == 0 or not self._fills or held.all():
            return held
        height, width = self._levels[level][0].size_px
        fine_height, fine_width = self._levels[level - 1][0].size_px
        rows = ((np.arange(box.y0, box.y1) + 0.5) * fine_height / height).astype(np.int64)
        cols = ((np.arange(box.x0, box.x1) + 0.5) * fine_width / width).astype(np.int64)
        seen = Box(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
        finer = self._written(level - 1, seen)
        return held if finer is None else held | finer[np.ix_(rows - seen.y0, cols - seen.x0)]

    def damaged_segments(self, level: int) -> list[DamagedSegment]:
        """Segments of a level that don't decode, found by decoding them all."""
        asked = [
            (number, plane, segment, place)
            for number, plane in enumerate(self._levels[level])
            for segment, place in plane.segment_places()
        ]
        with ThreadPoolExecutor(_DECODED_AT_ONCE) as threads:
            faults = threads.map(lambda each: each[1].fault_of(each[2], each[3]), asked)
            return [
                DamagedSegment(level, number, segment, place, fault)
                for (number, _, segment, place), fault in zip(asked, faults, strict=True)
                if fault is not None
            ]

    def chunk_px(self, level: int) -> tuple[int, int]:
        """Whole segments that make up about 1024 x 1024 px."""
        plane = self._levels[level][0]
        grid = plane.grid
        if plane.reads_rows:
            return min(_CHUNK_PX, grid.height), min(_CHUNK_PX, grid.width)
        wide = min(grid.width, grid.segment_width * max(1, round(_CHUNK_PX / grid.segment_width)))
        rows = min(_CHUNK_PX, _CHUNK_PX * _CHUNK_PX / wide)  # strips of wide images make low chunks
        tall = grid.segment_height * max(1, round(rows / grid.segment_height))
        return min(tall, grid.height), wide

    @property
    def segment_size(self) -> tuple[int, int] | None:
        """Width of the finest level's segments, and bytes of all bands of one; None where rows of them are read."""
        first = self._levels[0][0]
        if first.reads_rows:
            return None
        area = first.grid.segment_height * first.grid.segment_width
        return first.grid.segment_width, area * len(self._facts.bands) * self._facts.dtype.itemsize

    def close(self) -> None:
        self.cache.clear()
        self._file.close()


def _parse(
    place: Place, file: ImageFile, moment: Moment, cache_bytes: int
) -> tuple[list[list[Plane]], list[Plane | None], ImageFacts]:
    """The planes of every level, their masks, and what is known of the image."""
    chain = Chain.from_layout(TiffLayout.from_file(file))
    first = chain[0]
    # Special cases of tifffile that would follow lengths which the file claims.
    with TiffFile(file.stream(), is_ndpi=False, is_lsm=False, is_scanimage=False, is_stk=False) as tif:
        dialect = detect_dialect(place, chain, _page(tif, first), moment)
        first = chain[dialect.pages[0]]
        noted = sidecar_nodata(dialect.sidecars)
        nodata = read_nodata(first) if noted is None else noted
        smaller = find_levels(chain, dialect.pages, dialect.rule, dialect.smaller, dialect.following)
        levels = [[chain[index] for index in dialect.pages], *smaller]
        planes = _planes(tif, levels, dialect, alpha=moment.alpha)
        levels, planes = _whole_levels(levels, planes, dialect)
        for level, plane, segment in moment.damaged:
            if level < len(planes) and plane < len(planes[level]):
                planes[level][plane].leave_out(segment)
        masks, by_tuple = _masks(tif, chain, levels, planes, nodata, dialect)
    _add_sidecars(dialect.sidecars, first, planes, masks)
    file.expect_unbroken()
    # A segment is held encoded and decoded before it enters the cache; rows of uncompressed ones never do.
    largest = max(0 if plane.reads_rows else plane.decoded_bytes for level in planes for plane in level)
    memory_bytes = file.memory_bytes + cache_bytes + 2 * largest
    unwritten = any(has_gaps(level) for level in (planes[:1] if dialect.format == _FILLED else planes))
    has_mask = unwritten or any(mask is not None for mask in masks)
    in_bands = None if by_tuple else nodata_in_bands(nodata, first, planes[0][0].interpretation)
    facts = replace(_facts(dialect, planes, first), nodata=in_bands, memory_bytes=memory_bytes, has_mask=has_mask)
    return planes, masks, facts


def _page(tif: TiffFile, directory: Directory) -> TiffPage:
    tif.filehandle.seek(directory.offset)
    return TiffPage(tif, 0)


def _planes(tif: TiffFile, levels: list[list[Directory]], dialect: Dialect, *, alpha: bool) -> list[list[Plane]]:
    planes: list[list[Plane]] = []
    segments = 0
    for directories in levels:
        planes.append([])
        for directory in directories:
            page = _page(tif, directory)
            plane = Plane(page, directory, interpret(page, directory, is_indexed=dialect.is_indexed, alpha=alpha))
            segments += plane.segment_count
            if segments > MAX_ALL_SEGMENTS:
                raise SourceError(f"more than {MAX_ALL_SEGMENTS} strips and tiles in all; use larger tiles")
            planes[-1].append(plane)
    return planes


def _whole_levels(
    levels: list[list[Directory]], planes: list[list[Plane]], dialect: Dialect
) -> tuple[list[list[Directory]], list[list[Plane]]]:
    """The levels without those that lack what the finer one has; a slide's are filled instead."""
    if dialect.format == _FILLED:
        return levels, planes
    kept = [0]
    for at in range(1, len(planes)):
        if not is_patchy(planes[at], planes[kept[-1]]):
            kept.append(at)
    return [levels[at] for at in kept], [planes[at] for at in kept]


def _masks(
    tif: TiffFile,
    chain: Chain,
    levels: list[list[Directory]],
    planes: list[list[Plane]],
    nodata: float | None,
    dialect: Dialect,
) -> tuple[list[Plane | None], bool]:
    """Masks of the pixels that hold data, per level: a mask of its own, several bands' values for no data, an alpha
    channel, or a palette's nodata. And whether it is such values.
    """
    if len(levels[0]) > 1:
        return [None] * len(levels), False
    values = nodata_tuple(levels[0][0], dialect.sidecars, levels[0][0].number(_SAMPLES, 1))
    is_masked, by_tuple = dialect.sidecars.mask is not None, False
    found: list[Plane | None] = []
    sizes = [level[0].size_px for level in planes]
    for directory, level in zip(find_masks(chain, dialect.following, sizes), levels, strict=True):
        if directory is not None:
            page = _page(tif, directory)
            found.append(Plane(page, directory, interpret(page, directory)))
            is_masked = True
            continue
        page = _page(tif, level[0])
        if values is not None and not is_masked:
            found.append(Plane(page, level[0], interpret_tuple(page, values)))
            by_tuple = True
            continue
        # Asked for as a band, alpha is what it is in many maps: another band, that masks nothing. As in GDAL, it masks
        # nothing either where the file names a value for no data: near infrared is marked so, too, and is 0 on water.
        is_band = planes[0][0].interpretation.is_alpha_kept or _is_named(nodata, page)
        held = None if is_band else interpret_alpha(page)
        held = held or interpret_index(page, nodata)
        found.append(None if held is None else Plane(page, level[0], held))
    return found, by_tuple


def _is_named(nodata: float | None, page: TiffPage) -> bool:
    """True if a value for no data is one that the page's samples can have."""
    if nodata is None or page.dtype is None:
        return False
    return matched(nodata, page.dtype) is not None or (page.dtype.kind == "f" and not math.isfinite(nodata))


def _add_sidecars(beside: Sidecars, base: Directory, planes: list[list[Plane]], masks: list[Plane | None]) -> None:
    """Add what files beside the image hold: as GDAL does, where the image itself has no mask, or no coarser level."""
    if len(planes[0]) > 1:
        return
    if beside.mask is not None and not any(masks):
        masks[:] = sidecar_masks(beside.mask, [level[0].size_px for level in planes])
    if beside.overviews is None or len(planes) > 1:
        return
    for level, mask in sidecar_levels(beside.overviews, base):
        # A level that doesn't say which of its pixels hold data would call all of them data.
        if (masks[0] is None or mask is not None) and level.size_px < planes[-1][0].size_px:
            planes.append([level])
            masks.append(mask)


def _facts(dialect: Dialect, planes: list[list[Plane]], directory: Directory) -> ImageFacts:
    first = planes[0][0].interpretation
    bands = dialect.band_names or described(first.bands, directory)
    for level in planes:
        if sum(plane.band_count for plane in level) != len(bands):
            raise SourceError(f"pages do not hold the {len(bands)} bands that the metadata names")
        if any(plane.interpretation.dtype != first.dtype for plane in level):
            raise SourceError("channels or levels have different data types; convert the image")
        if any(plane.size_px != level[0].size_px for plane in level):
            raise SourceError("channels have different sizes; convert the image")
    return ImageFacts(
        dialect.format,
        bands,
        first.dtype,
        make_levels([level[0].size_px for level in planes], dialect.pixel_size),
        first.photometric,
        georeference=dialect.georeference,
        has_alpha=first.has_alpha,
        pages=dialect.stack_pages,
        focal_planes=dialect.focal_planes,
        times=dialect.times,
        images=dialect.images,
        is_slide=dialect.format == _FILLED,
        alpha=first.alpha if len(planes[0]) == 1 and not first.is_alpha_kept else (),
        series=dialect.series,
        orientation=known_orientation(directory.number(_ORIENTATION, 1)),
        scales=scales(len(bands), directory),
    )
