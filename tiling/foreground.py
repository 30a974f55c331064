"""Which tiles hold tissue or data; the others are skipped and hold background.

Bright-field slides are judged by Otsu's threshold (IEEE Trans. SMC 9, 1979) on a coarse view. A tile is
skipped only when nothing in it, nor one coarse pixel around it, looks like tissue even at a quarter of the way
from the glass to that threshold; where that judgement isn't safe (fluorescence, photographs, rasters without
nodata), no tile is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.filters import threshold_otsu

from tiling.errors import SourceError
from tiling.geometry import IMAGE_GRID, Box
from tiling.picture import write_png
from tiling.plan import Tile, TilePlan
from tiling.storage import Place
from tiling.thumbnail import block_mean, screen_factor, to_display

if TYPE_CHECKING:
    from tiling.source import ImageSource, Level

COARSE_PX = 16
MASK_OFF_PX = 0.5
"""How far the corners of a mask may lie from the image's, in its own pixels: coarse ones need not end where it does."""
GLASS_BRIGHTNESS = 200
SHARE_OF_THRESHOLD = 0.25
MICROSCOPY_MPP = 20.0


@dataclass(frozen=True, slots=True)
class Foreground:
    """A coarse picture of what counts as foreground, and why.

    Attributes:
        coarse: `(y, x)` bool, one value per `factor` x `factor` level pixels; None keeps every tile.
        factor: level pixels per coarse pixel along y and x.
        reason: one sentence for the run card and the person.
        held: the same for what is tissue or data itself, where `coarse` is more cautious; None where they are the same.
    """

    coarse: NDArray[np.bool_] | None
    factor: tuple[float, float]
    reason: str
    held: NDArray[np.bool_] | None = None

    def keeps(self, tile: Tile) -> bool:
        if self.coarse is None:
            return True
        (fy, fx), core = self.factor, tile.core
        y0, y1 = max(0, int(core.y0 / fy) - 1), int(np.ceil(core.y1 / fy)) + 1
        x0, x1 = max(0, int(core.x0 / fx) - 1), int(np.ceil(core.x1 / fx)) + 1
        return bool(self.coarse[y0:y1, x0:x1].any())

    def skipped(self, plan: TilePlan) -> list[Tile]:
        return [tile for tile in plan.tiles() if not self.keeps(tile)]

    def share(self, extent: tuple[int, int], within: NDArray[np.bool_] | None = None) -> float | None:
        """How much of a level of that height and width is tissue or data; None where that isn't told apart.

        `within`, one value per coarse pixel, says where it counts.
        """
        held = self.held if self.held is not None else self.coarse
        if held is None:
            return None
        tall, wide = (
            np.clip(side - np.arange(count) * factor, 0, factor)
            for side, count, factor in zip(extent, held.shape, self.factor, strict=True)
        )
        counted = held if within is None else held & within
        return float(tall @ counted @ wide) / (extent[0] * extent[1])


def find_foreground(source: ImageSource, level: int, mode: str) -> Foreground:
    """Judge which parts of a level are worth computing.

    Args:
        source: the image.
        level: the level being segmented.
        mode: `none`, `auto`, or the path of a mask image whose non-zero pixels are foreground (any size, the
            same aspect as the image).

    Raises:
        SourceError: a mask file that can't be read or doesn't lie on the image.
    """
    if mode == "none":
        return Foreground(None, (1, 1), "every tile is computed, as asked")
    if mode != "auto":
        return _from_mask(source, level, Path(mode))
    if source.has_mask:
        return _with_data(source, level)
    if source.nodata is not None:
        return _without_nodata(source, level)
    return _tissue(source, level)


def draw_skipped(source: ImageSource, level: int, plan: TilePlan, skipped: Iterable[Tile], path: Place) -> None:
    """Write a picture of the image at screen size with the skipped tiles greyed and crossed."""
    factor = screen_factor(source, level, plan.extent)
    picture = Image.fromarray(to_display(block_mean(source, level, factor)))
    draw = ImageDraw.Draw(picture, "RGBA")
    for tile in skipped:
        core = tile.core.intersect(plan.image)
        left, top, right, bottom = (v / factor for v in (core.x0, core.y0, core.x1, core.y1))
        draw.rectangle((left, top, right - 1, bottom - 1), fill=(96, 96, 96, 140), outline=(64, 64, 64, 255))
        draw.line((left, top, right, bottom), fill=(64, 64, 64, 255))
        draw.line((left, bottom, right, top), fill=(64, 64, 64, 255))
    write_png(path, picture, below=path.parent.parent)


def _tissue(source: ImageSource, level: int) -> Foreground:
    keep_all = Foreground(None, (1, 1), "every tile is computed: ")
    pixel_size = source.levels[level].pixel_size
    if pixel_size is None or pixel_size.unit != "um" or pixel_size.x > MICROSCOPY_MPP:
        return _because(keep_all, "the image has no microscopic pixel size, so it may be no slide")
    if len(source.bands) != 3 or source.dtype != np.uint8:
        return _because(keep_all, "only 8-bit RGB slides are judged by colour")
    means = block_mean(source, level, COARSE_PX)
    # Glass is white in every band; stain takes light from at least one.
    absorbed = 255 - means.min(axis=-1)
    seen = absorbed[np.isfinite(absorbed)]
    if seen.size == 0 or np.ptp(seen) < 1:
        return _because(keep_all, "the image is of one colour")
    threshold = float(threshold_otsu(seen))
    glass = seen[seen < threshold]
    level_of_glass = float(np.median(glass)) if glass.size else 255.0
    if 255 - level_of_glass < GLASS_BRIGHTNESS:
        return _because(keep_all, "the background is not bright, so the image is no bright-field slide")
    cautious = level_of_glass + SHARE_OF_THRESHOLD * (threshold - level_of_glass)
    reason = f"bright-field slide: tiles in which nothing absorbs more than {cautious:.0f} of 255 are skipped"
    # What didn't decode may be tissue: its tiles are tried, and fail with their reason.
    coarse, factor = (absorbed > cautious) | np.isnan(absorbed), (COARSE_PX, COARSE_PX)
    return Foreground(coarse, factor, reason, absorbed > threshold)


def _without_nodata(source: ImageSource, level: int) -> Foreground:
    means = block_mean(source, level, COARSE_PX)
    nodata = np.float32(np.nan if source.nodata is None else source.nodata)
    # A block's mean equals nodata to the last bit only where rounding is none: a block of nothing else.
    empty = np.isclose(means, nodata, rtol=0, atol=1e-3, equal_nan=True).all(axis=-1)
    reason = f"tiles in which every pixel is nodata ({nodata:g}) are skipped"
    return Foreground(np.logical_not(empty), (COARSE_PX, COARSE_PX), reason)


@dataclass(frozen=True, slots=True)
class _DataMask:
    """An image's own mask as an image: 255 where there is data, everywhere where a level has no mask."""

    source: ImageSource

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.source.levels

    @property
    def bands(self) -> tuple[str, ...]:
        return ("data",)

    def read(self, level: int, box: Box) -> NDArray[np.generic]:
        held = self.source.read_mask(level, box)
        whole = np.ones(box.shape, np.bool_) if held is None else held
        return whole[..., np.newaxis] * np.uint8(255)


def _with_data(source: ImageSource, level: int) -> Foreground:
    means = block_mean(_DataMask(source), level, COARSE_PX)[..., 0]
    # What didn't decode may be data: its tiles are tried, and fail with their reason.
    held = (means > 0) | np.isnan(means)
    if not held.any():
        return Foreground(None, (1, 1), "every tile is computed: the image's own mask calls nothing data")
    reason = "tiles without a pixel that the image's own mask calls data are skipped"
    return Foreground(held, (COARSE_PX, COARSE_PX), reason)


def _from_mask(source: ImageSource, level: int, path: Path) -> Foreground:
    try:
        with Image.open(path) as picture:
            coarse = np.asarray(picture.convert("L")) > 0
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(
            f"foreground mask {path} can't be read ({error}); give none, auto or an image file"
        ) from error
    _expect_on_image(source, level, path)
    wanted = source.levels[level]
    factor = wanted.height / coarse.shape[0], wanted.width / coarse.shape[1]
    if not 0.98 < factor[0] / factor[1] < 1.02:
        raise SourceError(
            f"foreground mask {path} is {coarse.shape[0]} x {coarse.shape[1]} px and the level {wanted.height} x "
            f"{wanted.width}: their aspects differ, so it doesn't lie on the image; give a mask of the same aspect"
        )
    return Foreground(coarse, factor, f"tiles without a pixel of {path.name} are skipped")


def _expect_on_image(source: ImageSource, level: int, path: Path) -> None:
    """Refuse a mask that says where it lies, and doesn't lie on the image."""
    from tiling.alignment import expect_one_crs, from_map, said
    from tiling.placement import Placement, moved
    from tiling.source import open_source

    try:
        mask = open_source(path)
    except SourceError:
        return  # of a kind that says nothing of its place
    with mask:
        on_map, mask_on_map = (Placement.of(each, n, IMAGE_GRID).to_map for each, n in ((source, level), (mask, 0)))
        if on_map is None or mask_on_map is None:
            return
        expect_one_crs(source, mask, "the pixels of foreground mask")
        whole, theirs = source.levels[level], mask.levels[0]
        ends = moved(on_map, np.array([[0, 0], [whole.width, 0], [whole.width, whole.height]]))
        wanted = np.array([[0, 0], [theirs.width, 0], [theirs.width, theirs.height]])
        if np.abs(from_map(mask_on_map, ends) - wanted).max() > MASK_OFF_PX:
            raise SourceError(
                f"foreground mask {path} ({said(mask, 0)}) doesn't lie on {source.path} ({said(source, level)}): what "
                f"lies elsewhere would be computed; warp or cut the mask to the image, or to its --region"
            )


def _because(foreground: Foreground, reason: str) -> Foreground:
    return Foreground(foreground.coarse, foreground.factor, foreground.reason + reason)
