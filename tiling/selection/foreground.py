"""Foreground: the tiles that hold tissue or data; the others are skipped and hold background.

Bright-field slides are judged by Otsu's threshold (IEEE Trans. SMC 9, 1979) on a coarse view, in which what has the
colour of ink has no say (`tiling.selection.ink`). A tile is skipped only when nothing in it, nor one coarse pixel
around it, looks like tissue even at a quarter of the way from the glass to that threshold; where that judgement isn't
safe (fluorescence, photographs, rasters without nodata), no tile is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.filters import threshold_otsu

from tiling.errors import SourceError
from tiling.geometry import IMAGE_GRID, Box
from tiling.plan import Tile, TilePlan
from tiling.selection.ink import ink_colours, without_detail
from tiling.sources.downsample import ScreenView, block_mean
from tiling.sources.matching import matched
from tiling.storage.picture import write_png
from tiling.storage.place import Place

if TYPE_CHECKING:
    from tiling.source import ImageSource, Level

COARSE_PX = 16
MASK_OFF_PX = 0.5
"""How far the corners of a mask may lie from the image's, in its own pixels: coarse ones need not end where it does."""
GLASS_BRIGHTNESS = 200
SHARE_OF_THRESHOLD = 0.25
GLASS_TINT = 15
"""Bands of glass differ by no more, of 255."""
LEAST_GLASS = 0.005
"""Of a slide; where less is bright, nothing says how bright its glass is."""
WHITEST = 90
"""The percentile of bright blocks that is the colour of the glass itself: shadows and pale tissue are darker."""
LEAST_ABSORBED = 4
"""Of 255, above the glass: less is dust, and the uneven light of the microscope."""
MOST_ABSORBED = 12
"""The same: what absorbs more is tissue, however dark something else is, such as a violet pen or a fold."""
DENSE = 60
"""The same, of a pen's middle: between such a mark and bare glass lies its edge, with all the detail of an edge."""
LEAST_TISSUE = 0.01
"""Of a slide: less, or all but less, is worth a look."""
MICROSCOPY_MPP = 20.0


@dataclass(frozen=True, slots=True)
class Foreground:
    """A coarse picture of what counts as foreground, and why.

    Attributes:
        coarse: `(y, x)` bool, one value per `factor` x `factor` level pixels; None keeps every tile.
        factor: level pixels per coarse pixel along y and x.
        reason: one sentence for the run card and the person.
        held: the same for what is tissue or data itself, where `coarse` is more cautious; None where they are the same.
        data: where the coarse view shows any data; None of images that hold data everywhere.
        remark: what a person should look at; mostly empty.
    """

    coarse: NDArray[np.bool_] | None
    factor: tuple[float, float]
    reason: str
    held: NDArray[np.bool_] | None = None
    data: NDArray[np.bool_] | None = None
    remark: str = ""

    def keeps(self, tile: Tile) -> bool:
        if self.coarse is None:
            return True
        return bool(self.coarse[self._around(tile)].any())

    def is_blind(self, tile: Tile) -> bool:
        """True if a tile shows nothing at all in the coarse view: all that it is judged by is that it has no data."""
        return self.data is not None and not self.data[self._around(tile)].any()

    def _around(self, tile: Tile) -> tuple[slice, slice]:
        """The coarse pixels of a tile's core, and one more on each side."""
        (fy, fx), core = self.factor, tile.core
        rows = slice(max(0, int(core.y0 / fy) - 1), int(np.ceil(core.y1 / fy)) + 1)
        return rows, slice(max(0, int(core.x0 / fx) - 1), int(np.ceil(core.x1 / fx)) + 1)

    def skipped(self, plan: TilePlan) -> list[Tile]:
        return [tile for tile in plan.tiles() if not self.keeps(tile)]

    def share(self, extent: tuple[int, int], within: NDArray[np.bool_] | None = None) -> float | None:
        """Share of a level of that height and width that is tissue or data; None where that isn't told apart.

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
    if not source.has_mask and matched(source.nodata, source.dtype) is None and not _is_nan(source.nodata):
        return _tissue(source, level)
    data = _data(source, level)
    if not data.any():
        return Foreground(None, (1, 1), "every tile is computed: nothing in the image is data")
    found = _tissue(source, level, data)
    if found.coarse is not None:
        return replace(found, reason=f"{found.reason}; so are tiles without data", data=data)
    return Foreground(data, (COARSE_PX, COARSE_PX), "tiles without a pixel that is data are skipped", data=data)


def _is_nan(value: float | None) -> bool:
    return value is not None and bool(np.isnan(value))


def draw_skipped(view: ScreenView, plan: TilePlan, skipped: Iterable[Tile], path: Place) -> None:
    """Write a picture of the image at screen size with the skipped tiles greyed and crossed."""
    picture, factor = Image.fromarray(view.picture), view.factor
    draw = ImageDraw.Draw(picture, "RGBA")
    for tile in skipped:
        core = tile.core.intersect(plan.image)
        left, top, right, bottom = (v / factor for v in (core.x0, core.y0, core.x1, core.y1))
        draw.rectangle((left, top, right - 1, bottom - 1), fill=(96, 96, 96, 140), outline=(64, 64, 64, 255))
        draw.line((left, top, right, bottom), fill=(64, 64, 64, 255))
        draw.line((left, bottom, right, top), fill=(64, 64, 64, 255))
    write_png(path, picture, below=path.parent.parent)


def _tissue(source: ImageSource, level: int, data: NDArray[np.bool_] | None = None) -> Foreground:
    keep_all = Foreground(None, (1, 1), "every tile is computed: ")
    pixel_size = source.levels[level].pixel_size
    is_slide = pixel_size is None and source.is_slide
    if not is_slide and (pixel_size is None or pixel_size.unit != "um" or pixel_size.x > MICROSCOPY_MPP):
        return _because(keep_all, "the image has no microscopic pixel size, so it may be no slide")
    if len(source.bands) != 3 or source.dtype != np.uint8:
        return _because(keep_all, "only 8-bit RGB slides are judged by colour")
    means = block_mean(source if data is None else _Held(source), level, COARSE_PX)
    # Glass is white in every band; stain takes light from at least one.
    absorbed = 255 - means.min(axis=-1)
    seen = np.isfinite(absorbed)
    if not seen.any() or np.ptp(absorbed[seen]) < 1:
        return _because(keep_all, "the image is of one colour")
    bright = seen & (absorbed <= 255 - GLASS_BRIGHTNESS) & (np.ptp(means, axis=-1) <= GLASS_TINT)
    if np.count_nonzero(bright) < LEAST_GLASS * np.count_nonzero(seen):
        return _because(keep_all, "the background is not bright, so the image is no bright-field slide")
    grey, coloured = ink_colours(means, np.percentile(means[bright], WHITEST, axis=0))
    inky = grey | coloured
    threshold, glass = _threshold(absorbed[seen & ~inky], absorbed[bright & ~inky])
    cautious = glass + float(np.clip(SHARE_OF_THRESHOLD * (threshold - glass), LEAST_ABSORBED, MOST_ABSORBED))
    threshold = max(threshold, cautious)
    dark = absorbed > cautious
    ink = without_detail(source, level, COARSE_PX, means, grey & dark, coloured & dark)
    # What didn't decode may be tissue: its tiles are tried, and fail with their reason.
    ink |= inky & dark & _beside(ink & (absorbed > glass + DENSE)) & _beside(seen & ~dark)
    coarse = (dark & ~ink) | (~seen if data is None else ~seen & data)
    reason = f"bright-field slide: tiles in which nothing absorbs more than {cautious:.0f} of 255 are skipped"
    if ink.any():
        reason += f", pens and other marks without detail ({np.mean(ink):.1%} of the slide) too"
    found = Foreground(coarse, (COARSE_PX, COARSE_PX), reason, (absorbed > threshold) & ~ink)
    return replace(found, remark=_remark(found, source.levels[level]))


def _beside(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of the blocks that are set or have one of their eight neighbours set."""
    padded = np.pad(flags, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _threshold(judged: NDArray[np.float32], bright: NDArray[np.float32]) -> tuple[float, float]:
    """Otsu's threshold of blocks that are no ink, and what glass absorbs: the median of the bright ones below it."""
    if not judged.size or np.ptp(judged) < 1:
        level = float(np.median(judged)) if judged.size else 255.0 - GLASS_BRIGHTNESS
        return level, level
    threshold = float(threshold_otsu(judged))
    glass = bright[bright < threshold]
    return threshold, float(np.median(glass)) if glass.size else float(judged.min())


def _remark(found: Foreground, level: Level) -> str:
    """Warning about a share of tissue that few slides have; else empty."""
    share = found.share((level.height, level.width))
    if share is None or LEAST_TISSUE <= share <= 1 - LEAST_TISSUE:
        return ""
    return (
        f"{share:.2%} of the slide is taken for tissue: look at exports/foreground.png, and give --foreground none or "
        f"a mask image where that is wrong"
    )


@dataclass(frozen=True, slots=True)
class _OnLevels:
    """Another image on the levels of one."""

    source: ImageSource

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.source.levels


class _Data(_OnLevels):
    """Mask of an image's data as an image: 255 there, 0 elsewhere."""

    @property
    def bands(self) -> tuple[str, ...]:
        return ("data",)

    def read(self, level: int, box: Box) -> NDArray[np.generic]:
        held = self.source.read_present(level, box)[1]
        whole = np.ones(box.shape, np.bool_) if held is None else np.asarray(held.any(axis=-1))
        return whole[..., np.newaxis] * np.uint8(255)


class _Held(_OnLevels):
    """An image's pixels as floats, those without data being no numbers."""

    @property
    def bands(self) -> tuple[str, ...]:
        return self.source.bands

    def read(self, level: int, box: Box) -> NDArray[np.generic]:
        pixels, held = self.source.read_present(level, box)
        return pixels if held is None else np.where(held, pixels.astype(np.float32), np.float32(np.nan))


def _data(source: ImageSource, level: int) -> NDArray[np.bool_]:
    """Mask of the data in a coarse view."""
    means = block_mean(_Data(source), level, COARSE_PX)[..., 0]
    # What didn't decode may be data: its tiles are tried, and fail with their reason.
    return (means > 0) | np.isnan(means)


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
    from tiling.georeference.placement import Placement, moved
    from tiling.selection.alignment import expect_one_crs, from_map, said
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
