"""Objects of a whole image, block by block: the same for any blocks, and in memory that doesn't grow with its pixels.

1. Seeds of each block, and how they connect across the blocks' borders: each gets its number.
2. Growth, with the rule's reach of seeds around each block.
3. Holes, joined over the borders as seeds are.
4. Specks go, the rest is numbered, and blocks are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiling.objects.blocks import Block, BlockGrid, BlockMap, in_order
from tiling.objects.holes import Holes
from tiling.objects.passes import Final, Passes, Pixels, Seeds
from tiling.objects.rule import Rule
from tiling.objects.scratch import Held, Scratch
from tiling.objects.spec import ObjectSpec
from tiling.objects.union import Seams, Union

SMALL_PIXELS = 1 << 22
"""Of an image of one block, up to which its passes are made in this thread and keep in memory what others need."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Objects that were found; both arrays begin with an entry for 0, no object.

    Attributes:
        classes: the label of each object.
        pixels: of each.
        specks: how many of each label, 0 to 255, were too small.
    """

    classes: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    specks: NDArray[np.int64]

    @property
    def count(self) -> int:
        return self.classes.size - 1


class Finder:
    """One search for objects.

    Args:
        pixels: the image's.
        rule: how they become objects.
        spec: what is too small, and which classes have no holes.
        grid: the blocks.
        scratch: a folder for what is kept between passes; nothing lies there of a small image.
        each: works on the blocks, but of a small image; some threads where a number of them is given.
    """

    def __init__(
        self, pixels: Pixels, rule: Rule, spec: ObjectSpec, grid: BlockGrid, scratch: Path, each: BlockMap | int = 2
    ) -> None:
        self._rule, self._spec, self._grid = rule, spec, grid
        is_small = grid.counts == (1, 1) and grid.at(0, 0).box.area <= SMALL_PIXELS
        here = 1 if is_small else each
        self._each: BlockMap = partial(in_order, threads=here) if isinstance(here, int) else here
        self._passes = Passes(pixels, rule, grid, Held() if is_small else Scratch(scratch), bool(spec.filled))

    def find(self, write: Callable[[Block, NDArray[np.int32]], None]) -> Objects:
        """Find all objects; `write` is given the numbers of each block that has any, wherever that is worked on."""
        seeds = self._find_seeds()
        pixels = self._grow(seeds) if self._rule.reach_px else seeds.pixels
        hole_of, offsets = self._find_holes(seeds, pixels) if self._spec.filled else (np.zeros(1, np.int32), [])
        least = np.array([self._spec.least_px.get(label, 1) for label in range(256)])
        is_kept = pixels >= least[seeds.classes]
        is_kept[0] = False
        numbers = np.where(is_kept, is_kept.cumsum(), 0).astype(np.int32)
        specks = np.bincount(seeds.classes[1:][~is_kept[1:]], minlength=256)
        kept = np.append(0, np.flatnonzero(is_kept))
        for _ in self._each(partial(self._passes.finish, seeds, Final(numbers, hole_of, offsets), write), self._grid):
            pass
        return Objects(seeds.classes[kept], pixels[kept], specks.astype(np.int64))

    def _find_seeds(self) -> Seeds:
        """Label each block, and number what hangs together by the first pixel of the whole."""
        union, seams, offsets = Union(), Seams(), list[int]()
        lists: tuple[list[NDArray[np.int64]], list[NDArray[np.uint8]], list[NDArray[np.int64]]] = ([], [], [])
        for block, found in self._each(self._passes.parts, self._grid):
            offsets.append(union.add(found.firsts.size))
            for theirs, own in seams.add(block, found.edges.raised(offsets[-1])):
                union.join(theirs, own)
            lists[0].append(found.firsts)
            lists[1].append(found.classes)
            lists[2].append(found.pixels)
        firsts, classes, pixels = np.concatenate(lists[0]), np.concatenate(lists[1]), np.concatenate(lists[2])
        whole = union.solve(classes)
        count = int(whole.max())
        first = np.full(count + 1, np.iinfo(np.int64).max)
        first[0] = -1
        np.minimum.at(first, whole[1:], firsts)
        rank = np.empty(count + 1, np.int32)
        rank[np.argsort(first)] = np.arange(count + 1)
        of_part = rank[whole]
        of_seed = np.zeros(count + 1, np.uint8)
        of_seed[of_part[1:]] = classes
        sums = np.bincount(of_part[1:], weights=pixels, minlength=count + 1)
        return Seeds(offsets, of_part, of_seed, sums.astype(np.int64))

    def _grow(self, seeds: Seeds) -> NDArray[np.int64]:
        """Grow all seeds; returns the pixels of each object."""
        pixels = np.zeros(seeds.pixels.size, np.int64)
        for _, (numbers, own) in self._each(partial(self._passes.grow, seeds), self._grid):
            pixels[numbers] += own
        return pixels

    def _find_holes(self, seeds: Seeds, pixels: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[int]]:
        """The object that each part of a free area is a hole of, whose pixels are added to the object's."""
        holes = Holes()
        for block, areas in self._each(partial(self._passes.free, seeds), self._grid):
            holes.add(block, areas)
        hole_of, sizes = holes.solve(np.isin(seeds.classes, self._spec.filled))
        np.add.at(pixels, hole_of[1:], sizes[1:])
        pixels[0] = 0
        return hole_of, holes.offsets
