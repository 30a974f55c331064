"""Choice of the foreground: of tissue, of data, of a mask image, or everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiling.selection.coarse_data import COARSE_PX, coarse_data
from tiling.selection.foreground import Foreground
from tiling.selection.mask_image import foreground_of_mask
from tiling.selection.part_map import PartMap
from tiling.selection.tissue import find_tissue
from tiling.sources.matching import matched

if TYPE_CHECKING:
    from tiling.source import ImageSource


def find_foreground(source: ImageSource, level: int, mode: str, elsewhere: PartMap | None = None) -> Foreground:
    """Judge which parts of a level are worth computing.

    Args:
        source: the image.
        level: the level being segmented.
        mode: `none`, `auto`, or the path of a mask image whose non-zero pixels are foreground (any size, the
            same aspect as the image).
        elsewhere: reads much of the image in other processes, part by part; what is found is the same.

    Raises:
        SourceError: a mask file that can't be read or doesn't lie on the image.
        Whatever `elsewhere` raises.
    """
    if mode == "none":
        return Foreground(None, (1, 1), "every tile is computed, as asked")
    if mode != "auto":
        return foreground_of_mask(source, level, Path(mode))
    extent = source.levels[level].box.shape
    if not source.has_mask and matched(source.nodata, source.dtype) is None and not _is_nan(source.nodata):
        found = find_tissue(source, level, elsewhere=elsewhere)
        return found if found.coarse is None else found.in_squares(extent)
    data = coarse_data(source, level, elsewhere)
    if not data.any():
        return Foreground(None, (1, 1), "every tile is computed: nothing in the image is data")
    found = find_tissue(source, level, data, elsewhere)
    if found.coarse is not None:
        return replace(found, reason=f"{found.reason}; so are tiles without data", data=data).in_squares(extent)
    return Foreground(data, (COARSE_PX, COARSE_PX), "tiles without a pixel that is data are skipped", data=data)


def _is_nan(value: float | None) -> bool:
    return value is not None and bool(np.isnan(value))
