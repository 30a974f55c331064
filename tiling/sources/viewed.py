"""A view of a file, with a file's own reading interface: everything that reads images reads views."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.sources.computed import ComputedReader
from tiling.sources.facts import Georeference, ImageFacts, Level, Reader, make_levels
from tiling.sources.matching import matched
from tiling.sources.present import Present, read_bands, read_present
from tiling.sources.resampling import WORKING_BYTES, Axis, Resampling
from tiling.view import Stretch, View

Pixels = npt.NDArray[np.generic]

_CHUNK_PX = 1024
_MAX_LEVELS = 32


@dataclass(frozen=True, slots=True)
class _Sampled:
    """One level of a view: which level of the file it is read from, and how.

    `corner` is the first pixel's place where pixels are taken as they are, else None.
    """

    level: int
    shape: tuple[int, int]
    corner: tuple[int, int] | None
    rows: Axis
    cols: Axis


class ViewReader:
    """An open file of which a view is taken. Safe to call from several threads at once."""

    def __init__(self, reader: Reader, view: View) -> None:
        self._file = reader
        self._reader = ComputedReader(reader, view.formulas) if view.formulas else reader
        self._view = view
        facts = self._reader.facts
        if view.level >= len(facts.levels):
            raise SourceError(f"level {view.level} is not in the image; it has levels 0 to {len(facts.levels) - 1}")
        chosen = view.bands if view.bands is not None else range(len(facts.bands))
        if any(band >= len(facts.bands) for band in chosen):
            raise SourceError(f"band {max(chosen) + 1} is not in the image; it has {len(facts.bands)}")
        if view.stretch is not None and len(view.stretch.low) != len(chosen):
            raise SourceError(f"{len(view.stretch.low)} ranges of values are given for {len(chosen)} bands")
        self._levels = _levels(facts, view)
        self._facts = _facts(facts, view, tuple(facts.bands[band] for band in chosen), self._levels)

    @property
    def file(self) -> Reader:
        """The open file itself."""
        return self._file

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the level."""
        sampled, facts = self._levels[level], self._reader.facts
        if sampled.corner is not None:
            pixels = self._chosen(sampled.level, box.translate(*sampled.corner))
        elif facts.may_lack_data:
            return self.read_present(level, box)[0]
        else:
            resampling = Resampling(sampled.rows, sampled.cols, len(self._facts.bands), facts.dtype)
            pixels = resampling.read(lambda seen: self._chosen(sampled.level, seen), box)
        return pixels if self._view.stretch is None else stretched(pixels, self._view.stretch)

    def read_present(self, level: int, box: Box) -> tuple[Pixels, Present | None]:
        """Pixels of a box, and which of their values are data by what the file holds before anything is stretched."""
        sampled, facts = self._levels[level], self._reader.facts
        bands = self._view.bands
        if sampled.corner is not None:
            place = box.translate(*sampled.corner)
            pixels, held = read_present(self._reader, sampled.level, place, bands)
        else:
            gap = facts.nodata if matched(facts.nodata, facts.dtype) is not None else None
            resampling = Resampling(
                sampled.rows, sampled.cols, len(self._facts.bands), facts.dtype, has_gaps=True, gap=gap
            )
            pixels, held = resampling.read_present(
                lambda seen: read_present(self._reader, sampled.level, seen, bands), box
            )
        return (pixels if self._view.stretch is None else stretched(pixels, self._view.stretch)), held

    def in_file(self, level: int, box: Box) -> tuple[int, Box] | None:
        """Level and box of the file that hold a box of the view; None where that is resampled."""
        sampled = self._levels[level]
        return None if sampled.corner is None else (sampled.level, box.translate(*sampled.corner))

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels of a box that hold data, `(y, x)`; None where the file says nothing of it."""
        sampled = self._levels[level]
        if not self._facts.has_mask:
            return None
        if sampled.corner is not None:
            return self._reader.read_mask(sampled.level, box.translate(*sampled.corner))

        def whole(seen: Box) -> Pixels:
            mask = self._reader.read_mask(sampled.level, seen)
            return np.full((*seen.shape, 1), 255, np.uint8) if mask is None else mask[..., np.newaxis] * np.uint8(255)

        resampling = Resampling(sampled.rows, sampled.cols, 1, np.dtype(np.uint8))
        return resampling.read(whole, box)[..., 0].astype(np.bool_)

    def chunk_px(self, level: int) -> tuple[int, int]:
        sampled = self._levels[level]
        tall, wide = (_CHUNK_PX, _CHUNK_PX) if sampled.corner is None else self._reader.chunk_px(sampled.level)
        return min(tall, sampled.shape[0]), min(wide, sampled.shape[1])

    def close(self) -> None:
        self._reader.close()

    def _chosen(self, level: int, box: Box) -> Pixels:
        return read_bands(self._reader, level, box, self._view.bands)


def stretched(pixels: Pixels, stretch: Stretch) -> Pixels:
    """Values from each band's range to the whole range of the stretch's type; NaN becomes the lowest."""
    top = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[stretch.dtype]
    low = np.array(stretch.low)
    # Band by band, so that no array of eight bytes a value is held for all of them.
    out = np.empty(pixels.shape, stretch.dtype)
    for band, (start, end) in enumerate(zip(low, stretch.high, strict=True)):
        shares = np.clip((pixels[..., band].astype(np.float64) - start) / (end - start), 0.0, 1.0)
        values = np.nan_to_num(shares, copy=False, nan=0.0) * top
        out[..., band] = values if stretch.dtype == "float32" else np.rint(values)
    return out


def _levels(facts: ImageFacts, view: View) -> list[_Sampled]:
    """The view's pyramid: the file's own where pixels are taken as they are, else halves of halves sampled from it."""
    first = facts.levels[view.level]
    if not view.resamples and view.region is None:
        return [_as_it_is(level, Box(0, 0, level.height, level.width), (0, 0)) for level in facts.levels[view.level :]]
    whole = view.whole(first.height, first.width)
    box = view.box or whole
    if not whole.contains(box):
        raise SourceError(f"region {box} is not inside the level of {whole.height} x {whole.width} px")
    base = _sampled(facts, view, first, box, 0) if view.resamples else _as_it_is(first, box, (box.y0, box.x0))
    levels = [base]
    for halvings in range(1, _MAX_LEVELS):
        if max(box.shape) >> halvings == 0:
            break
        source = _coarsest(facts, view, 2**halvings)
        if source.index > levels[-1].level:
            levels.append(_sampled(facts, view, source, box, halvings))
    return levels


def _as_it_is(level: Level, box: Box, corner: tuple[int, int]) -> _Sampled:
    return _Sampled(level.index, box.shape, corner, Axis(level.height, 1.0), Axis(level.width, 1.0))


def _sampled(facts: ImageFacts, view: View, source: Level, box: Box, halvings: int) -> _Sampled:
    """A level whose pixels are `2**halvings` of the view's, from a level of the file."""
    first, factor = facts.levels[view.level], 2**halvings
    shape = -(-box.height // factor), -(-box.width // factor)
    rows = Axis(source.height, view.step[0] * factor * source.height / first.height, box.y0 / factor)
    cols = Axis(source.width, view.step[1] * factor * source.width / first.width, box.x0 / factor)
    return _Sampled(source.index, shape, None, rows, cols)


def _coarsest(facts: ImageFacts, view: View, factor: int) -> Level:
    """The coarsest level of the file whose pixels are no larger than `factor` of the view's."""
    first, best = facts.levels[view.level], facts.levels[view.level]
    for level in facts.levels[view.level + 1 :]:
        larger = max(first.height / level.height / view.step[0], first.width / level.width / view.step[1])
        if larger <= factor * 1.01:
            best = level
    return best


def _facts(facts: ImageFacts, view: View, bands: tuple[str, ...], levels: list[_Sampled]) -> ImageFacts:
    base = view.stated_size or facts.levels[0].pixel_size
    y, x = view.pixel_px
    size = PixelSize(base.y * y, base.x * x, base.unit) if base is not None else None
    return replace(
        facts,
        bands=bands,
        scales=tuple(facts.scales[band] for band in view.bands) if view.bands and facts.scales else facts.scales,
        dtype=facts.dtype if view.stretch is None else np.dtype(view.stretch.dtype),
        levels=make_levels([level.shape for level in levels], size),
        origins_px=_origins(facts, view),
        nodata=facts.nodata if view.stretch is None else None,
        lacks_by_value=None if view.stretch is None else replace(facts, has_mask=False).may_lack_data,
        georeference=None if facts.georeference is None else _placed(facts.georeference, view),
        memory_bytes=facts.memory_bytes + (0 if all(level.corner is not None for level in levels) else WORKING_BYTES),
    )


def _origins(facts: ImageFacts, view: View) -> tuple[tuple[float, float], ...]:
    """Of the view's first level, its region apart; centres of pixels of another size lie elsewhere than theirs."""
    if not facts.origins_px:
        return ()
    y, x = (
        origin / step + (1 - 1 / step) / 2 for origin, step in zip(facts.origins_px[view.level], view.step, strict=True)
    )
    return ((y, x),)


def _placed(reference: Georeference, view: View) -> Georeference:
    """Georeference of the view's level 0: pixels of another size that begin at the view's corner."""
    (y, x), (top, left) = view.pixel_px, view.corner_px
    affine = None
    if reference.affine is not None:
        a, b, c, d, e, f = reference.affine
        affine = (a * x, b * y, a * left + b * top + c, d * x, e * y, d * left + e * top + f)
    points = tuple(((col - left) / x, (row - top) / y, *rest) for col, row, *rest in reference.tiepoints)
    return replace(reference, affine=affine, tiepoints=points)
