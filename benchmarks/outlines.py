"""Outlines of what models find on images without labels, on one page for people to look at.

    python -m benchmarks.outlines --model BEFORE --model AFTER --out PAGE.webp IMAGE [IMAGE …]

Each row shows the middle of one image, up to 512 px, as it is and with the objects of each model outlined.
`IMAGE@Y,X` starts the 512 px at that row and column.
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


def outlined(image_HW3: NDArray[np.uint8], objects_HW: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The image twice as large, with the outermost half pixel of every object drawn."""
    large_HW3 = image_HW3.repeat(2, axis=0).repeat(2, axis=1)
    large_HW = objects_HW.repeat(2, axis=0).repeat(2, axis=1)
    cross = ndimage.generate_binary_structure(2, 1)
    greatest_HW = ndimage.grey_dilation(large_HW, footprint=cross)
    least_HW = ndimage.grey_erosion(large_HW, footprint=cross)
    large_HW3[(large_HW > 0) & ((greatest_HW != large_HW) | (least_HW != large_HW))] = _OUTLINE
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


def write_page(path: Path, bundles: Sequence[Bundle], references: Sequence[str]) -> None:
    """Write the page, and say how much of each part is object."""
    cell = _SIDE_PX + _GAP_PX
    page = Image.new(
        "RGB", ((1 + len(bundles)) * cell + _GAP_PX, len(references) * (cell + _CAPTION_PX) + _GAP_PX), PAPER
    )
    draw = ImageDraw.Draw(page)
    for row, reference in enumerate(references):
        name, image_HW3 = read_part(reference)
        top = _GAP_PX + row * (cell + _CAPTION_PX)
        draw.text((_GAP_PX, top), name, INK, font(16), "lt")
        page.paste(Image.fromarray(image_HW3), (_GAP_PX, top + _CAPTION_PX))
        for column, bundle in enumerate(bundles, start=1):
            objects_HW = objects_of(bundle, image_HW3)
            told = f"{int(objects_HW.max())} objects, {100 * (objects_HW > 0).mean():.1f} % of the pixels"
            sys.stdout.write(f"{name}: {told}\n")
            sys.stdout.flush()
            left = _GAP_PX + column * cell
            draw.text((left, top), told, INK, font(16), "lt")
            shown = Image.fromarray(outlined(image_HW3, objects_HW)).resize(
                image_HW3.shape[1::-1], Image.Resampling.BOX
            )
            page.paste(shown, (left, top + _CAPTION_PX))
    page.save(path, quality=88)


def _middle(length: int) -> int:
    return max(0, (length - _SIDE_PX) // 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_page(arguments.out, [load_bundle(each) for each in arguments.model], arguments.images)


if __name__ == "__main__":
    main()
