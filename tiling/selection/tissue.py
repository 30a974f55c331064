"""Tissue of a bright-field slide, found on a coarse view.

By Otsu's threshold (IEEE Trans. SMC 9, 1979), in which what has the colour of ink has no say (`tiling.selection.ink`).
A tile is skipped only when nothing in it, nor one coarse pixel around it, looks like tissue even at a quarter of the
way from the glass to that threshold; where that judgement isn't safe (fluorescence, photographs, rasters without
nodata), no tile is skipped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from tiling.selection.coarse_data import COARSE_PX, DataOnly, as_stored, coarse_means
from tiling.selection.extremes import greatest_band, least_band
from tiling.selection.foreground import Foreground
from tiling.selection.ink import ink_colours, without_detail
from tiling.selection.part_map import PartMap

if TYPE_CHECKING:
    from tiling.source import ImageSource
    from tiling.sources.facts import Level

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


def find_tissue(
    source: ImageSource, level: int, data: NDArray[np.bool_] | None = None, elsewhere: PartMap | None = None
) -> Foreground:
    """The tissue of a level; every tile where the image is no bright-field slide.

    `data` says where it holds data; `elsewhere` reads much of it in other processes.
    """
    keep_all = Foreground(None, (1, 1), "every tile is computed: ")
    pixel_size = source.levels[level].pixel_size
    is_slide = pixel_size is None and source.is_slide
    if not is_slide and (pixel_size is None or pixel_size.unit != "um" or pixel_size.x > MICROSCOPY_MPP):
        return _because(keep_all, "the image has no microscopic pixel size, so it may be no slide")
    if len(source.bands) != 3 or source.dtype != np.uint8:
        return _because(keep_all, "only 8-bit RGB slides are judged by colour")
    means = coarse_means(source, level, as_stored if data is None else DataOnly, elsewhere)
    # Glass is white in every band; stain takes light from at least one.
    least = least_band(means)
    absorbed = 255 - least
    seen = np.isfinite(absorbed)
    if not seen.any() or np.ptp(absorbed[seen]) < 1:
        return _because(keep_all, "the image is of one colour")
    bright = seen & (absorbed <= 255 - GLASS_BRIGHTNESS) & (greatest_band(means) - least <= GLASS_TINT)
    if np.count_nonzero(bright) < LEAST_GLASS * np.count_nonzero(seen):
        return _because(keep_all, "the background is not bright, so the image is no bright-field slide")
    grey, coloured = ink_colours(means, np.percentile(means[bright], WHITEST, axis=0))
    inky = grey | coloured
    threshold, glass = _threshold(absorbed[seen & ~inky], absorbed[bright & ~inky])
    cautious = glass + float(np.clip(SHARE_OF_THRESHOLD * (threshold - glass), LEAST_ABSORBED, MOST_ABSORBED))
    threshold = max(threshold, cautious)
    dark = absorbed > cautious
    ink = without_detail(source, level, COARSE_PX, means, grey & dark, coloured & dark, elsewhere)
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


def _because(foreground: Foreground, reason: str) -> Foreground:
    return Foreground(foreground.coarse, foreground.factor, foreground.reason + reason)
