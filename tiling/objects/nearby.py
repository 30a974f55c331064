"""Objects of one place of an image, found anew from the pixels around it, as pictures show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.objects.blocks import Block, BlockGrid
from tiling.objects.find import Finder
from tiling.objects.passes import Pixels
from tiling.objects.rule import Rule, View
from tiling.objects.spec import ObjectSpec

AROUND_PX = 64
"""How far beyond the place pixels are looked at, besides the rule's reach: most objects end within that."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Pixels of a part of the image, whose boxes count from the part's corner."""

    pixels: Pixels
    part: Box

    def view(self, box: Box, *, probabilities: bool) -> View:
        return self.pixels.view(box.translate(self.part.y0, self.part.x0), probabilities=probabilities)


def nearby_objects(
    pixels: Pixels, rule: Rule, spec: ObjectSpec, place: Box, image: Box
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Number of the object of each pixel of a place, `(y, x)`, 0 where there is none, and the label of each number.

    Numbers are the place's own. An object that reaches far beyond the place counts with what lies near.
    """
    reach_px = AROUND_PX + rule.reach_px + rule.seed_reach_px
    part = place.expand(reach_px, reach_px, reach_px, reach_px).intersect(image)
    numbers = np.zeros(part.shape, np.int32)

    def keep(block: Block, found: NDArray[np.int32]) -> None:
        numbers[block.box.slices] = found

    with TemporaryDirectory(prefix="overtile-place-") as scratch:
        grid = BlockGrid(part.shape, part.shape)
        objects = Finder(_Part(pixels, part), rule, spec, grid, Path(scratch), 1).find(keep)
    return numbers[place.relative_to(part).slices], objects.classes
