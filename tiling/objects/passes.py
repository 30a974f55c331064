"""Passes over the blocks of an image whose objects are searched for: each block by itself, in any process.

What a pass keeps for the next one lies in files, or in memory of a small image; what it gives back is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.objects.blocks import Block, BlockGrid
from tiling.objects.holes import CLOSED, FreeAreas
from tiling.objects.rule import NO_CLASS, Rule, View
from tiling.objects.scratch import Kept
from tiling.objects.stretches import Edges, Stretches

SEEDS, GROWN, UNKNOWN, FREE = "seeds", "grown", "unknown", "free"


class Pixels(Protocol):
    """Pixels that objects are made of."""

    def view(self, box: Box, *, probabilities: bool) -> View:
        """The pixels of a box."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The seeds in a block: parts of the image's."""

    firsts: NDArray[np.int64]
    classes: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    edges: Edges


@dataclass(frozen=True, slots=True, eq=False)
class Seeds:
    """The image's seeds by their numbers, and the way there from the parts that blocks hold."""

    offsets: list[int]
    of_part: NDArray[np.int32]
    classes: NDArray[np.uint8]
    pixels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Final:
    """Objects as they are in the end.

    Attributes:
        numbers: by the number of a seed; 0 for a speck.
        hole_of: the seed that each part of a free area is a hole of.
        offsets: how much the parts of each block are raised; none where no holes are filled.
    """

    numbers: NDArray[np.int32]
    hole_of: NDArray[np.int32]
    offsets: list[int]


@dataclass(frozen=True, eq=False)
class Passes:
    """Work on each block; pickles where the pixels and the rule do.

    Attributes:
        pixels: the image's.
        rule: how they become objects.
        grid: the blocks.
        scratch: what is kept between passes.
        fills: whether some classes have no holes.
    """

    pixels: Pixels
    rule: Rule
    grid: BlockGrid
    scratch: Kept
    fills: bool

    @property
    def image(self) -> Box:
        return Box(0, 0, *self.grid.shape)

    def parts(self, block: Block) -> Parts:
        """The seeds in a block."""
        reach = self.rule.seed_reach_px
        around = self.grid.around(block.box, reach)
        view = self.pixels.view(around, probabilities=self.rule.takes_probabilities)
        inside = block.box.relative_to(around).slices
        stretches = Stretches.none(block.box.shape)
        if view.labels.any():
            stretches = Stretches.of(self.rule.seeds(view)[inside])
            if self.fills:
                unknown = _flagged(view.labels[inside] == NO_CLASS)
                self.scratch.keep(UNKNOWN, block.index, unknown.renamed(np.full(unknown.size, CLOSED, np.int32)))
        parts, starts = stretches.components(), stretches.starts
        self.scratch.keep(SEEDS, block.index, numbered := stretches.renamed(parts))
        count, heads = int(parts.max(initial=0)), np.unique(parts, return_index=True)[1]
        rows, cols = np.divmod(starts[heads], block.box.width)
        firsts = (rows + block.box.y0) * self.image.width + cols + block.box.x0
        pixels = np.bincount(parts, weights=stretches.pixels, minlength=count + 1)[1:]
        classes = stretches.values[heads].astype(np.uint8)
        return Parts(firsts, classes, pixels.astype(np.int64), numbered.edges())

    def grow(self, seeds: Seeds, block: Block) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Grow the seeds in and around a block; returns the numbers of those in it then, and the pixels of each."""
        grown = self._grown(block, seeds)
        self.scratch.keep(GROWN, block.index, grown)
        numbers, place = np.unique(grown.values, return_inverse=True)
        return numbers, np.bincount(place, weights=grown.pixels, minlength=numbers.size).astype(np.int64)

    def free(self, seeds: Seeds, block: Block) -> FreeAreas:
        """The areas of a block that are no object's; those that may be holes are kept, not returned."""
        unknown = self.scratch.load(UNKNOWN, block.index, block.box.shape)
        areas = FreeAreas.of(self._objects(block, seeds).with_others(unknown), block.box, self.image)
        self.scratch.keep(FREE, block.index, areas.candidates)
        return replace(areas, candidates=Stretches.none(block.box.shape))

    def finish(
        self, seeds: Seeds, final: Final, write: Callable[[Block, NDArray[np.int32]], None], block: Block
    ) -> None:
        """Write a block's objects by their last numbers."""
        objects = self._objects(block, seeds)
        found = objects.valued(final.numbers[objects.values])
        holes = self.scratch.load(FREE, block.index, block.box.shape) if final.offsets else None
        if holes is not None and holes.size:
            filled = holes.valued(final.numbers[final.hole_of[holes.values + final.offsets[block.index]]])
            found = found.with_others(filled)
        if found.size:
            write(block, found.dense())

    def _grown(self, block: Block, seeds: Seeds) -> Stretches:
        around, count = self.grid.around(block.box, self.rule.reach_px), 0
        dense = np.zeros(around.shape, np.int32)
        for other in self.grid.touching(around):
            part = other.box.intersect(around)
            near = self._seeds(other, seeds)
            near = near if part == other.box else near.cropped(part.relative_to(other.box))
            near.paint(dense, part.relative_to(around))
            count += near.size
        if not count:
            return Stretches.none(block.box.shape)
        view = self.pixels.view(around, probabilities=self.rule.takes_probabilities)
        return Stretches.of(self.rule.grow(dense, view)[block.box.relative_to(around).slices])

    def _objects(self, block: Block, seeds: Seeds) -> Stretches:
        if self.rule.reach_px:
            return self.scratch.load(GROWN, block.index, block.box.shape)
        return self._seeds(block, seeds)

    def _seeds(self, block: Block, seeds: Seeds) -> Stretches:
        parts = self.scratch.load(SEEDS, block.index, block.box.shape)
        return parts.renamed(seeds.of_part[parts.values + seeds.offsets[block.index]])


def _flagged(flags_YX: NDArray[np.bool_]) -> Stretches:
    return Stretches.of(flags_YX.view(np.uint8)) if flags_YX.any() else Stretches.none(flags_YX.shape)
