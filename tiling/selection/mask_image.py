"""Mask image as the foreground: a picture that a person gives, non-zero where tiles are computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tiling.errors import SourceError
from tiling.geometry import IMAGE_GRID
from tiling.georeference.placement import Placement, moved
from tiling.selection.alignment import expect_one_crs, from_map, said
from tiling.selection.foreground import Foreground
from tiling.source import ImageSource, open_source

MASK_OFF_PX = 0.5
"""How far the corners of a mask may lie from the image's, in its own pixels: coarse ones need not end where it does."""


def foreground_of_mask(source: ImageSource, level: int, path: Path) -> Foreground:
    """The foreground that a picture gives: its pixels that aren't 0, over the whole level.

    Raises:
        SourceError: it can't be read, has another aspect than the level, or says that it lies elsewhere.
    """
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
