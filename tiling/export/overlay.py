"""`overlay.png`: the image at screen size under the mask's classes, failed tiles hatched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tiling.geometry import Box
from tiling.plan import Tile
from tiling.runs.mask import Mask
from tiling.runs.probabilities import Probabilities
from tiling.sources.downsample import SCREEN_PX, ScreenView
from tiling.storage.picture import write_png

if TYPE_CHECKING:
    from tiling.runs.run import Run
    from tiling.source import ImageSource

Steps = tuple[float, float]  # mask pixels per pixel of the picture, y before x

TINT = 0.45
HATCH_PX = 10


def write_overlay(run: Run, source: ImageSource, failed: Sequence[Tile], view: ScreenView | None = None) -> Image.Image:
    """Draw the run's mask over its image, or over a view of it that is there already; returns what is written.

    Every class but the background is tinted in its colour and outlined; failed tiles are hatched in red. Where the
    mask is finer than the image and the screen has room for it, the image's pixels are repeated.
    """
    scale, path = run.plan.grid.scale, run.overlay_path
    view = view or ScreenView.of(source, run.card.image.level, run.plan.extent)
    picture, factor = view.picture, view.factor
    repeats = max(1, min(math.ceil(max(scale)), SCREEN_PX // max(picture.shape)))
    steps = float(scale[0] * factor / repeats), float(scale[1] * factor / repeats)
    image = Image.fromarray(enlarged(picture, repeats))
    labels = sampled(run.open_mask(read_only=True), steps, (image.height, image.width))
    for label, item in enumerate(run.classes):
        if label:
            tint(image, labels == label, item.color)
    for tile in failed:
        _hatch(image, tile, steps)
    write_png(path, image)
    return image


def sampled(image: Mask | Probabilities, steps: Steps, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels of an image, `(y, x)` or `(class, y, x)`, at the centres of a picture's, from the level just finer."""
    levels = image.pyramid.levels
    level = max(0, min(len(levels) - 1, int(np.log2(max(1.0, min(steps))))))
    height, width = (int(side) for side in levels[level].shape[-2:])
    pixels = image.read(Box(0, 0, height, width), level)
    rows = np.minimum(((np.arange(shape[0]) + 0.5) * (steps[0] / 2**level)).astype(int), height - 1)
    cols = np.minimum(((np.arange(shape[1]) + 0.5) * (steps[1] / 2**level)).astype(int), width - 1)
    return pixels[..., rows, :][..., cols]


def enlarged(picture: NDArray[np.uint8], repeats: int) -> NDArray[np.uint8]:
    """A picture `(y, x, band)` with each pixel repeated so many times both ways; itself where that is once."""
    return picture if repeats == 1 else picture.repeat(repeats, axis=0).repeat(repeats, axis=1)


def tint(picture: Image.Image, covered: NDArray[np.bool_], color: str) -> None:
    """Tint the covered pixels of a picture in a colour, in place, and draw their outline in it."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    bands = [(np.arange(256) * (1 - TINT) + np.float32(value) * np.float32(TINT)) for value in (red, green, blue)]
    tinted = picture.point(np.concatenate(bands).astype(np.uint8).tolist())
    picture.paste(tinted, mask=Image.fromarray(covered))
    picture.paste((red, green, blue), mask=Image.fromarray(outline(covered)))


def outline(covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Covered pixels with an uncovered neighbour above, below, left or right."""
    return covered & borders(np.pad(covered, 1, mode="edge"))


def borders(labels: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Inner pixels, all but the outermost, with a neighbour above, below, left or right of another label."""
    here = labels[1:-1, 1:-1]
    found = here != labels[:-2, 1:-1]
    for other in (labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]):
        found |= here != other
    return found


def _hatch(image: Image.Image, tile: Tile, steps: Steps) -> None:
    top, bottom = (round(y / steps[0]) for y in (tile.valid.y0, tile.valid.y1))
    left, right = (round(x / steps[1]) for x in (tile.valid.x0, tile.valid.x1))
    hatched = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)), (213, 94, 0, 60))
    draw = ImageDraw.Draw(hatched)
    for offset in range(-hatched.height, hatched.width, HATCH_PX):
        draw.line((offset, hatched.height, offset + hatched.height, 0), fill=(213, 0, 0, 220), width=2)
    draw.rectangle((0, 0, hatched.width - 1, hatched.height - 1), outline=(213, 0, 0, 255), width=2)
    image.paste(hatched, (left, top), hatched)
