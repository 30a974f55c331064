"""Coarse views of an image in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.errors import SourceError
from tiling.geometry import Box, ceil_to
from tiling.sources.square_means import square_means
from tiling.storage.on_threads import on_threads

if TYPE_CHECKING:
    from tiling.sources.facts import Level

READ_PX = 1024
SMALLEST_PX = 64
SCREEN_PX = 1600


class Readable(Protocol):
    """Pyramid of pixels: an image, or its mask."""

    @property
    def levels(self) -> tuple[Level, ...]: ...

    @property
    def bands(self) -> tuple[str, ...]: ...

    def read(self, level: int, box: Box) -> NDArray[np.generic]:
        """Pixels `(y, x, band)` of a box inside the level."""
        ...


def block_mean(
    source: Readable, level: int, factor: int, *, part: Box | None = None, threads: int = 2
) -> NDArray[np.float32]:
    """Mean of every `factor` x `factor` square of a level: `(ceil(y / factor), ceil(x / factor), band)`.

    With `part`, a box of the level whose corner is a multiple of the factor, of the squares in that part alone.

    Starts from the coarsest pyramid level that a whole number of its pixels fits, so that a slide with a
    pyramid is never decoded in full. Squares at the right and bottom average the pixels that they have.
    NaN counts as no pixel; a square of nothing else is NaN. So is what doesn't decode: a coarse view shows what
    can be seen, and the tiles that need the rest fail by themselves.
    """
    wanted = source.levels[level].box if part is None else part
    start, inner = _coarsest_fitting(source, level, factor)
    top, left = wanted.y0 // factor, wanted.x0 // factor
    shape = (-(-wanted.height // factor), -(-wanted.width // factor), len(source.bands))
    read = source.levels[start].box
    if part is not None:
        under, whole = Box(top, left, top + shape[0], left + shape[1]).scaled(inner), source.levels[level].box
        # A coarser level that was rounded up reaches further than the last square.
        bottom, right = (
            read.y1 if part.y1 == whole.y1 else under.y1,
            read.x1 if part.x1 == whole.x1 else under.x1,
        )
        read = read.intersect(Box(under.y0, under.x0, bottom, right))
    side = ceil_to(READ_PX, inner)
    boxes = [
        Box(y, x, min(y + side, read.y1), min(x + side, read.x1))
        for y in range(read.y0, read.y1, side)
        for x in range(read.x0, read.x1, side)
    ]
    held = -(-read.height // inner), -(-read.width // inner)
    coarse = np.full((max(shape[0], held[0]), max(shape[1], held[1]), shape[2]), np.nan, "f4")

    def fill(box: Box) -> None:
        try:
            means = square_means(source.read(start, box), inner)
        except SourceError:
            for quarter in _quarters(box, ceil_to(SMALLEST_PX, inner)):
                fill(quarter)
            return
        y, x = box.y0 // inner - top, box.x0 // inner - left
        coarse[y : y + means.shape[0], x : x + means.shape[1]] = means

    on_threads(fill, boxes, threads)
    return coarse[: shape[0], : shape[1]]


def read_area(source: Readable, level: int, factor: int) -> int:
    """Pixels that `block_mean` reads of a whole level."""
    return source.levels[_coarsest_fitting(source, level, factor)[0]].box.area


def parts_of_means(source: Readable, level: int, factor: int, pixels: int) -> list[Box]:
    """Parts of a level from top to bottom, for each of which `block_mean` reads about so many pixels.

    It reads the same boxes for them as for the whole, so that also what doesn't decode is the same.
    """
    start, inner = _coarsest_fitting(source, level, factor)
    whole, read, side = source.levels[level].box, source.levels[start].box, ceil_to(READ_PX, inner)
    tall = side * max(1, pixels // (side * read.width)) * (factor // inner)
    # What is left over at the bottom may be less than a row of a coarser level that was rounded down.
    tops = [y for y in range(0, whole.height, tall) if y == 0 or whole.height - y >= tall // 2]
    return [Box(top, 0, bottom, whole.width) for top, bottom in zip(tops, [*tops[1:], whole.height], strict=True)]


def screen_factor(source: Readable, level: int, extent: tuple[int, int]) -> int:
    """The whole-number factor that brings an extent of a level to at most screen size.

    It is rounded up to a multiple of the coarsest pyramid level that is fine enough, since by any other `block_mean`
    would decode the level itself: of a slide of 100,000 px, all of it for one picture.
    """
    needed = max(1, -(-max(extent) // SCREEN_PX))
    base = source.levels[level].downsample
    ratios = (_whole(each.downsample / base) for each in source.levels[level + 1 :])
    return ceil_to(needed, max((ratio for ratio in ratios if ratio is not None and ratio <= needed), default=1))


@dataclass(frozen=True, slots=True)
class ScreenView:
    """A level at screen size, as pictures of a run begin.

    Attributes:
        picture: `(y, x, 3)` uint8, not to be written to.
        factor: level pixels per pixel of it.
    """

    picture: NDArray[np.uint8]
    factor: int

    @classmethod
    def of(cls, source: Readable, level: int, extent: tuple[int, int], *, threads: int = 2) -> ScreenView:
        factor = screen_factor(source, level, extent)
        picture = to_display(block_mean(source, level, factor, threads=threads))
        picture.flags.writeable = False
        return cls(picture, factor)


def display_range(means: NDArray[np.float32]) -> tuple[float, float]:
    """The values that are shown as black and white: 0 and 255, or the 1st and 99th percentile where those don't fit."""
    bands = _shown_bands(means)
    low, high = (float(bands.min()), float(bands.max())) if bands.size else (0.0, 255.0)
    if low >= 0 and 1 < high <= 255:  # which neither NaN nor infinity is
        return 0.0, 255.0
    finite = bands[np.isfinite(bands)]
    low, high = (0.0, 255.0) if finite.size == 0 else (float(finite.min()), float(finite.max()))
    if low < 0 or high > 255 or high <= 1:
        low, high = (float(v) for v in np.percentile(finite, (1, 99)))
        return low, high
    return 0.0, 255.0


def to_display(means: NDArray[np.float32], limits: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """A picture `(y, x, 3)` uint8 of block means: the first three bands, or one band in gray.

    Eight-bit images are shown as they are; others are stretched between their 1st and 99th percentile, or between
    the limits that a view of the whole image has given.
    """
    bands = _shown_bands(means)
    low, high = display_range(means) if limits is None else limits
    shown = bands - np.float32(low)
    shown /= np.float32(max(high - low, 1e-12))
    np.fmax(shown, 0, out=shown)  # what is no number is black
    np.minimum(shown, 1, out=shown)
    shown *= 255
    return np.rint(shown, out=shown).astype(np.uint8)


def _shown_bands(means: NDArray[np.float32]) -> NDArray[np.float32]:
    return means[..., :3] if means.shape[-1] >= 3 else np.repeat(means[..., :1], 3, axis=-1)


def _quarters(box: Box, grain: int) -> list[Box]:
    """The box's four parts, cut at multiples of the grain; none when it can't be cut."""
    cut_y = box.y0 + ceil_to(-(-box.height // 2), grain)
    cut_x = box.x0 + ceil_to(-(-box.width // 2), grain)
    if cut_y >= box.y1 and cut_x >= box.x1:
        return []
    rows, cols = ((box.y0, min(cut_y, box.y1)), (cut_y, box.y1)), ((box.x0, min(cut_x, box.x1)), (cut_x, box.x1))
    return [Box(y0, x0, y1, x1) for y0, y1 in rows for x0, x1 in cols if y0 < y1 and x0 < x1]


def _coarsest_fitting(source: Readable, level: int, factor: int) -> tuple[int, int]:
    base = source.levels[level].downsample
    best = (level, factor)
    for candidate in source.levels[level + 1 :]:
        whole = _whole(candidate.downsample / base)
        if whole is not None and factor % whole == 0:
            best = (candidate.index, factor // whole)
    return best


def _whole(ratio: float) -> int | None:
    """A ratio of two levels' pixels as a whole number; scanners round the sides of theirs."""
    whole = round(ratio)
    return whole if abs(ratio - whole) < 0.01 * whole else None
