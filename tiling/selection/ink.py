"""Ink and other dark areas of a bright-field slide that are no stain: pens, lines, shadows, borders, empty tiles.

Recognised by its colour and by its lack of detail, both of which are needed: a pen over tissue shows the tissue through
it, and some stains (alcian blue, methyl green) have the colour of a pen. Other pipelines go by colour alone (the red,
green and blue pen filters of HistoQC and histolab, https://github.com/histolab/histolab), and lose such tissue.

Colours are optical densities (Beer and Lambert; Ruifrok and Johnston 2001), whose proportions between the bands are the
same for a pale and a dark mark: haematoxylin 0.65, 0.70, 0.29, eosin 0.07, 0.99, 0.11, DAB 0.27, 0.57, 0.78.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, product
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.selection.extremes import greatest_band, least_band
from tiling.selection.part_map import LEAST_PIXELS, PART_PIXELS, PartMap
from tiling.sources.square_means import is_summed_whole
from tiling.storage.on_threads import on_threads

if TYPE_CHECKING:
    from tiling.source import ImageSource

Flags = NDArray[np.bool_]

NEUTRAL, NOISE = 0.25, 0.02
"""Where densities differ by less than this share of the greatest, or by the noise of pale blocks, they are one grey."""
FAINT = 0.015
"""A density below which glass and its unevenness lie, whose colour says nothing."""
BLACK = 16
"""What is darker in all bands shows no detail by which tissue could be known."""
SMOOTH, SMOOTH_GREY = 1.5, 2.5
"""Of 255: the curvature of brightness over 6 px that three quarters of a block exceed where there is detail in it. Pens
on bare glass have 0.3 to 0.7, JPEG's noise included, and a thin line up to 2; tissue under a pen 3 to 20."""
REACH_PX, QUARTILE = 3, 25
SQUARE_BLOCKS, CELL_BLOCKS = 64, 16
"""Squares are looked at in turn, so that what their cells share is decoded once; a cell is 256 px, as files' tiles."""
THREADS = 2


def ink_colours(means: NDArray[np.float32], white: NDArray[np.floating]) -> tuple[Flags, Flags]:
    """Masks of block means `(y, x, 3)` of a colour that no common stain has, beside the glass: grey, and others."""
    density = np.maximum(0, np.log(white / np.maximum(means, 1)))
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    most, least = greatest_band(density), least_band(density)
    grey = most - least < np.maximum(NEUTRAL * most, NOISE)
    # Stains take green at least as much as red; inks of green and blue let it through.
    green_or_blue = red > 1.3 * green
    # Eosin takes green alone, blood a little of the others too, red ink green and blue alike.
    red_ink = (blue > 0.7 * green) & (red < 0.35 * green)
    yellow = blue > 1.8 * np.maximum(green, red)
    coloured = ~grey & (green_or_blue | red_ink | yellow)
    return (most > FAINT) & grey, (most > FAINT) & coloured


def without_detail(
    source: ImageSource,
    level: int,
    block_px: int,
    means: NDArray[np.float32],
    grey: Flags,
    coloured: Flags,
    elsewhere: PartMap | None = None,
) -> Flags:
    """Masks of blocks of either kind that show nothing but a colour; only what lies around some of them is read.

    What doesn't decode counts as detail: its tiles are tried, and fail with their reason. `elsewhere` reads in other
    processes where that pays.
    """
    asked, smooth_blocks = grey | coloured, _SmoothBlocks(level, block_px)
    smooth = asked & (greatest_band(means) < BLACK)
    open_ = asked & ~smooth
    if elsewhere is None or np.count_nonzero(_held(open_)) * (CELL_BLOCKS * block_px) ** 2 < LEAST_PIXELS:
        return smooth | smooth_blocks(source, (0, open_, grey))[1]
    tall = SQUARE_BLOCKS * max(1, PART_PIXELS // (SQUARE_BLOCKS * block_px**2 * asked.shape[1]))
    rows = [slice(top, top + tall) for top in range(0, asked.shape[0], tall)]
    for top, found in elsewhere(smooth_blocks, [(each.start, open_[each], grey[each]) for each in rows]):
        smooth[top : top + tall] |= found
    return smooth


@dataclass(frozen=True, slots=True)
class _SmoothBlocks:
    """Mask of the blocks in some rows that show no detail, of those that are open, with the first row's number."""

    level: int
    block_px: int

    def __call__(self, source: ImageSource, part: tuple[int, Flags, Flags]) -> tuple[int, Flags]:
        first_row, open_, grey = part
        limits = np.where(grey, np.float32(SMOOTH_GREY), np.float32(SMOOTH))
        whole, smooth = source.levels[self.level].box, np.zeros(open_.shape, np.bool_)

        def look(corner: tuple[int, int]) -> None:
            top, left = corner
            blocks, at = list[NDArray[np.float32]](), list[NDArray[np.int64]]()
            for cells in _cells(open_[top : top + SQUARE_BLOCKS, left : left + SQUARE_BLOCKS]):
                place = cells.translate(top, left)
                box = place.translate(first_row, 0).scaled(self.block_px).intersect(whole)
                try:
                    pixels = source.read(self.level, box)
                except SourceError:
                    continue
                wanted = open_[place.slices]
                blocks.append(brightness(pixels, wanted, self.block_px))
                at.append(np.argwhere(wanted) + np.array([place.y0, place.x0]))
            if blocks:
                rows, cols = np.concatenate(at).T
                smooth[rows, cols] = bends_less(np.concatenate(blocks), limits[rows, cols])

        rows, cols = (range(0, count, SQUARE_BLOCKS) for count in open_.shape)
        on_threads(look, product(rows, cols), THREADS)
        return first_row, smooth


def _cells(wanted: Flags) -> Iterator[Box]:
    """Boxes of whole cells that hold all wanted blocks, in blocks: what lies side by side in a row of cells."""
    for row, held in enumerate(_held(wanted).tolist()):
        top = row * CELL_BLOCKS
        for is_held, run in groupby(range(len(held)), held.__getitem__):
            if is_held:
                cols = [*run]
                right = min((cols[-1] + 1) * CELL_BLOCKS, wanted.shape[1])
                yield Box(top, cols[0] * CELL_BLOCKS, min(top + CELL_BLOCKS, wanted.shape[0]), right)


def _held(wanted: Flags) -> Flags:
    """Mask of the cells that hold a wanted block."""
    rows, cols = (range(0, count, CELL_BLOCKS) for count in wanted.shape)
    return np.logical_or.reduceat(np.logical_or.reduceat(wanted, rows, axis=0), cols, axis=1)


def brightness(pixels: NDArray[np.generic], wanted: Flags, block_px: int) -> NDArray[np.float32]:
    """The mean of the bands in each wanted block of pixels, `(block, y, x)`.

    Blocks that the image covers in part are filled with what lies at its edge.
    """
    more = tuple((0, -side % block_px) for side in pixels.shape[:2])
    padded = np.pad(pixels, (*more, (0, 0)), mode="edge") if any(after for _, after in more) else pixels
    rows, cols = padded.shape[0] // block_px, padded.shape[1] // block_px
    squares = padded.reshape(rows, block_px, cols, block_px, -1).swapaxes(1, 2)[wanted]
    bands = squares.shape[-1]
    if not is_summed_whole(squares.dtype, bands):
        return squares.astype(np.float32).mean(axis=-1)
    # Band by band, which is quicker than along an axis of three, and the same: sums of whole numbers are exact.
    sums = squares[..., 0].astype(np.float32)
    for band in range(1, bands):
        sums += cast("NDArray[np.uint16]", squares[..., band])
    sums /= np.float32(bands)
    return sums


def bends_less(blocks: NDArray[np.float32], limits: NDArray[np.float32]) -> Flags:
    """Mask of the blocks whose curvature is less than its limit.

    The quartile lies between two neighbours in the order of a block's differences. How many are less than the limit
    says of nearly every block on which side both lie, and of the others which two they are, which is quicker than to
    order them.
    """
    differences = _differences(blocks)
    first, hundredths = divmod((differences.shape[-1] - 1) * QUARTILE, 100)
    is_less = differences < limits[:, np.newaxis]
    less = np.count_nonzero(is_less, axis=-1)
    found = np.asarray(less > first + 1)
    between = np.flatnonzero(less == first + 1)
    if between.size:
        near, below = differences[between], is_less[between]
        last, following = np.where(below, near, -np.inf).max(axis=-1), np.where(below, np.inf, near).min(axis=-1)
        # From the nearer one, as `percentile` goes, so that the last bit is its own.
        apart, share = following - last, np.float32(hundredths / 100)
        quartile = last + apart * share if share < 0.5 else following - apart * (1 - share)
        found[between] = quartile < limits[between]
    return found


def curvature(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lower quartile over each block of how much brightness bends: a ramp, as at a pen's edge, doesn't."""
    return np.percentile(_differences(blocks), QUARTILE, axis=-1)


def _differences(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Amounts by which brightness bends downwards and across, wherever a block has the pixels for it."""
    d, block_px = REACH_PX, blocks.shape[1]
    down = np.abs(2 * blocks[:, d:-d] - blocks[:, 2 * d :] - blocks[:, : -2 * d])
    across = np.abs(2 * blocks[..., d:-d] - blocks[..., 2 * d :] - blocks[..., : -2 * d])
    differences = block_px * (block_px - 2 * d)
    return np.concatenate([each.reshape(len(blocks), differences) for each in (down, across)], axis=-1)
