"""Outlines of what models find on images without labels, on one page for people to look at.

    python -m benchmarks.outlines --model BEFORE --model AFTER [--columns 2] [--shown 360] --out PAGE.webp IMAGE …

Each image is shown by its middle, up to 512 px, as it is and with the objects of each model outlined, each picture in
`--shown` px and `--columns` images side by side. `IMAGE@Y,X` starts the 512 px at that row and column.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from benchmarks.robustness import objects_in
from flows.training.drawing import INK, PAPER, font
from tiling.source import open_source
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.training.evaluation import whole_image_labels
from unet_core.training.output_grid import OutputGrid

_SIDE_PX, _GAP_PX, _CAPTION_PX = 512, 8, 24
_OUTLINE = (0, 230, 60)


def objects_of(bundle: Bundle, image_HW3: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Numbered objects: grown from interiors where the card has borders, else connected pixels."""
    grid = OutputGrid.of(bundle.module, len(bundle.card.bands))
    return objects_in(whole_image_labels(bundle.module, bundle.card, image_HW3, grid), bundle.card)


def outlined(image_HW3: NDArray[np.uint8], objects_HW: NDArray[np.int32], halves: int = 1) -> NDArray[np.uint8]:
    """The image twice as large, with the outermost half pixel of every object drawn, or so many of them."""
    large_HW3 = image_HW3.repeat(2, axis=0).repeat(2, axis=1)
    large_HW = objects_HW.repeat(2, axis=0).repeat(2, axis=1)
    cross = ndimage.generate_binary_structure(2, 1)
    greatest_HW = ndimage.grey_dilation(large_HW, footprint=cross)
    least_HW = ndimage.grey_erosion(large_HW, footprint=cross)
    is_outline_HW = (large_HW > 0) & ((greatest_HW != large_HW) | (least_HW != large_HW))
    if halves > 1:
        is_outline_HW = np.asarray(ndimage.binary_dilation(is_outline_HW, iterations=halves - 1), np.bool_)
    large_HW3[is_outline_HW] = _OUTLINE
    return large_HW3


def read_part(reference: str) -> tuple[str, NDArray[np.uint8]]:
    """The name and pixels of the part that `IMAGE` or `IMAGE@Y,X` names; transparent pixels are white."""
    path, _, start = reference.partition("@")
    with open_source(Path(path)) as source:
        image_HWN = source.read(0, source.levels[0].box)
    height, width = image_HWN.shape[:2]
    y, x = (int(each) for each in start.split(",")) if start else (_middle(height), _middle(width))
    part_HWN: NDArray[Any] = image_HWN[y : y + _SIDE_PX, x : x + _SIDE_PX]
    part_HW3 = part_HWN[..., :3].copy()
    if part_HWN.shape[2] == 4:
        part_HW3[part_HWN[..., 3] == 0] = 255
    return f"{Path(path).stem}{f' at {y}, {x}' if start else ''}", part_HW3


def write_page(
    path: Path, bundles: Sequence[Bundle], references: Sequence[str], columns: int = 1, shown_px: int = _SIDE_PX
) -> None:
    """Write the page, and say how much of each part is object."""
    cell, wide = shown_px + _GAP_PX, (1 + len(bundles)) * (shown_px + _GAP_PX) + 2 * _GAP_PX
    rows, halves = -(-len(references) // columns), 1 if shown_px >= _SIDE_PX else 2
    page = Image.new("RGB", (columns * wide, rows * (cell + _CAPTION_PX) + _GAP_PX), PAPER)
    draw = ImageDraw.Draw(page)
    for place, reference in enumerate(references):
        name, image_HW3 = read_part(reference)
        left, top = _GAP_PX + place % columns * wide, _GAP_PX + place // columns * (cell + _CAPTION_PX)
        height, width = (max(1, side * shown_px // _SIDE_PX) for side in image_HW3.shape[:2])
        pictures = [(name, image_HW3)]
        for bundle in bundles:
            objects_HW = objects_of(bundle, image_HW3)
            counts = f"{int(objects_HW.max())} objects, {100 * (objects_HW > 0).mean():.1f} % of the pixels"
            sys.stdout.write(f"{name}: {counts}\n")
            sys.stdout.flush()
            pictures.append((counts, outlined(image_HW3, objects_HW, halves)))
        for column, (text, pixels_HW3) in enumerate(pictures):
            draw.text((left + column * cell, top), text, INK, font(15), "lt")
            picture = Image.fromarray(pixels_HW3).resize((width, height), Image.Resampling.LANCZOS)
            page.paste(picture, (left + column * cell, top + _CAPTION_PX))
    page.save(path, quality=75, method=6)


def _middle(length: int) -> int:
    return max(0, (length - _SIDE_PX) // 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--columns", type=int, default=1)
    parser.add_argument("--shown", type=int, default=_SIDE_PX)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    bundles = [load_bundle(each) for each in given.model]
    write_page(given.out, bundles, given.images, given.columns, given.shown)


if __name__ == "__main__":
    main()
