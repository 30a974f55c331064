"""`overlay.png`: the image at screen size under the mask's classes, failed tiles hatched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tiling.geometry import Box
from tiling.plan import Tile
from tiling.stitching import LabelClass, Mask
from tiling.thumbnail import block_mean, screen_factor, to_display

if TYPE_CHECKING:
    from tiling.source import ImageSource

TINT = 0.45
HATCH_PX = 10


def write_overlay(
    source: ImageSource, level: int, mask: Mask, classes: Sequence[LabelClass], failed: Sequence[Tile], path: Path
) -> None:
    """Draw the mask over the image.

    Every class but the background is tinted in its colour and outlined; failed tiles are hatched in red.
    """
    factor = screen_factor(*mask.shape)
    picture = to_display(block_mean(source, level, factor))
    labels = _labels_at(mask, factor, (picture.shape[0], picture.shape[1]))
    for label, item in enumerate(classes):
        if label:
            _tint(picture, labels == label, item.color)
    image = Image.fromarray(picture)
    for tile in failed:
        _hatch(image, tile, factor)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    image.save(partial, format="PNG")
    partial.replace(path)


def _labels_at(mask: Mask, factor: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask sampled at the centres of screen pixels, from the pyramid level just finer than the screen."""
    level = max(0, min(len(mask.levels) - 1, int(np.log2(factor))))
    step = factor / 2**level
    height, width = mask.levels[level].shape
    labels = mask.read(Box(0, 0, int(height), int(width)), level)
    rows = np.minimum(((np.arange(shape[0]) + 0.5) * step).astype(int), int(height) - 1)
    cols = np.minimum(((np.arange(shape[1]) + 0.5) * step).astype(int), int(width) - 1)
    return labels[np.ix_(rows, cols)]


def _tint(picture: NDArray[np.uint8], covered: NDArray[np.bool_], color: str) -> None:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
    picture[covered] = (picture[covered] * (1 - TINT) + rgb * TINT).astype(np.uint8)
    picture[_outline(covered)] = rgb.astype(np.uint8)


def _outline(covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Covered pixels with an uncovered neighbour above, below, left or right."""
    padded = np.pad(covered, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return covered & ~inside


def _hatch(image: Image.Image, tile: Tile, factor: int) -> None:
    box = tuple(round(v / factor) for v in (tile.valid.x0, tile.valid.y0, tile.valid.x1, tile.valid.y1))
    left, top, right, bottom = box
    hatched = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)), (213, 94, 0, 60))
    draw = ImageDraw.Draw(hatched)
    for offset in range(-hatched.height, hatched.width, HATCH_PX):
        draw.line((offset, hatched.height, offset + hatched.height, 0), fill=(213, 0, 0, 220), width=2)
    draw.rectangle((0, 0, hatched.width - 1, hatched.height - 1), outline=(213, 0, 0, 255), width=2)
    image.paste(hatched, (left, top), hatched)
