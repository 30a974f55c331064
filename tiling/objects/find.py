"""Objects of a whole image, block by block: the same for any blocks, and in memory that doesn't grow with its pixels.

1. Seeds of each block, and how they hang together over the blocks' borders: each gets its number.
2. Growth, with the rule's reach of seeds around each block.
3. Holes, joined over the borders as seeds are.
4. Specks go, the rest is numbered, and blocks are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.objects.blocks import Block, BlockGrid, in_order
from tiling.objects.holes import CLOSED, FreeAreas, Holes
from tiling.objects.rule import NO_CLASS, Rule, View
from tiling.objects.scratch import Scratch
from tiling.objects.spec import ObjectSpec
from tiling.objects.stretches import Edges, Stretches
from tiling.objects.union import Seams, Union

SEEDS, GROWN, UNKNOWN, FREE = "seeds", "grown", "unknown", "free"


class Pixels(Protocol):
    """What objects are made of."""

    def view(self, box: Box, *, probabilities: bool) -> View:
        """The pixels of a box."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """What was found; both arrays begin with an entry for 0, no object.

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


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """The seeds in a block: parts of the image's."""

    firsts: NDArray[np.int64]
    classes: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    edges: Edges


@dataclass(frozen=True, slots=True, eq=False)
class _Seeds:
    """The image's seeds by their numbers, and the way there from the parts that blocks hold."""

    offsets: list[int]
    of_part: NDArray[np.int32]
    classes: NDArray[np.uint8]
    pixels: NDArray[np.int64]


class Finder:
    """One search for objects.

    Args:
        pixels: the image's.
        rule: how they become objects.
        spec: what is too small, and which classes have no holes.
        grid: the blocks.
        scratch: a folder for what is kept between passes.
        threads: that work side by side.
    """

    def __init__(
        self, pixels: Pixels, rule: Rule, spec: ObjectSpec, grid: BlockGrid, scratch: Path, threads: int = 2
    ) -> None:
        self._pixels, self._rule, self._spec, self._grid = pixels, rule, spec, grid
        self._scratch, self._threads = Scratch(scratch), threads
        self._image = Box(0, 0, *grid.shape)

    def find(self, write: Callable[[Block, NDArray[np.int32]], None]) -> Objects:
        """Find all objects; `write` is given the numbers of each block that has any, from several threads."""
        seeds = self._find_seeds()
        pixels = self._grow(seeds) if self._rule.reach_px else seeds.pixels
        hole_of, offsets = self._find_holes(seeds, pixels) if self._spec.filled else (np.zeros(1, np.int32), [])
        least = np.array([self._spec.least_px.get(label, 1) for label in range(256)])
        is_kept = pixels >= least[seeds.classes]
        is_kept[0] = False
        numbers = np.where(is_kept, is_kept.cumsum(), 0).astype(np.int32)
        specks = np.bincount(seeds.classes[1:][~is_kept[1:]], minlength=256)
        kept = np.append(0, np.flatnonzero(is_kept))

        def finish(block: Block) -> None:
            objects = self._objects(block, seeds)
            found = objects.valued(numbers[objects.values])
            holes = self._scratch.load(FREE, block.index, block.box.shape) if offsets else None
            if holes is not None and holes.size:
                filled = holes.valued(numbers[hole_of[holes.values + offsets[block.index]]])
                found = found.with_others(filled)
            if found.size:
                write(block, found.dense())

        for _ in in_order(finish, self._grid, self._threads):
            pass
        return Objects(seeds.classes[kept], pixels[kept], specks.astype(np.int64))

    def _find_seeds(self) -> _Seeds:
        """Label each block, and number what hangs together by the first pixel of the whole."""
        union, seams, offsets = Union(), Seams(), list[int]()
        lists: tuple[list[NDArray[np.int64]], list[NDArray[np.uint8]], list[NDArray[np.int64]]] = ([], [], [])
        for block, found in in_order(self._parts_of, self._grid, self._threads):
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
        return _Seeds(offsets, of_part, of_seed, sums.astype(np.int64))

    def _parts_of(self, block: Block) -> _Parts:
        reach = self._rule.seed_reach_px
        around = self._grid.around(block.box, reach)
        view = self._pixels.view(around, probabilities=self._rule.takes_probabilities)
        inside = block.box.relative_to(around).slices
        stretches = Stretches.none(block.box.shape)
        if view.labels.any():
            stretches = Stretches.of(self._rule.seeds(view)[inside])
            if self._spec.filled:
                unknown = Stretches.of((view.labels[inside] == NO_CLASS).view(np.uint8))
                closed = np.full(unknown.size, CLOSED, np.int32)
                self._scratch.keep(UNKNOWN, block.index, unknown.renamed(closed))
        parts, starts = stretches.components(), stretches.starts
        self._scratch.keep(SEEDS, block.index, numbered := stretches.renamed(parts))
        count, heads = int(parts.max(initial=0)), np.unique(parts, return_index=True)[1]
        rows, cols = np.divmod(starts[heads], block.box.width)
        firsts = (rows + block.box.y0) * self._image.width + cols + block.box.x0
        pixels = np.bincount(parts, weights=stretches.pixels, minlength=count + 1)[1:]
        classes = stretches.values[heads].astype(np.uint8)
        return _Parts(firsts, classes, pixels.astype(np.int64), numbered.edges())

    def _grow(self, seeds: _Seeds) -> NDArray[np.int64]:
        """Grow all seeds; returns the pixels of each object."""
        pixels = np.zeros(seeds.pixels.size, np.int64)

        def grow(block: Block) -> Stretches:
            grown = self._grown(block, seeds)
            self._scratch.keep(GROWN, block.index, grown)
            return grown

        for _, grown in in_order(grow, self._grid, self._threads):
            np.add.at(pixels, grown.values, grown.pixels)
        return pixels

    def _grown(self, block: Block, seeds: _Seeds) -> Stretches:
        around, count = self._grid.around(block.box, self._rule.reach_px), 0
        dense = np.zeros(around.shape, np.int32)
        for other in self._grid.touching(around):
            part = other.box.intersect(around)
            near = self._seeds(other, seeds)
            near = near if part == other.box else near.cropped(part.relative_to(other.box))
            near.paint(dense, part.relative_to(around))
            count += near.size
        if not count:
            return Stretches.none(block.box.shape)
        view = self._pixels.view(around, probabilities=self._rule.takes_probabilities)
        return Stretches.of(self._rule.grow(dense, view)[block.box.relative_to(around).slices])

    def _find_holes(self, seeds: _Seeds, pixels: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[int]]:
        """The object that each part of a free area is a hole of, whose pixels are added to the object's."""
        holes = Holes()

        def look(block: Block) -> FreeAreas:
            unknown = self._scratch.load(UNKNOWN, block.index, block.box.shape)
            taken = self._objects(block, seeds).with_others(unknown)
            areas = FreeAreas.of(taken, block.box, self._image)
            self._scratch.keep(FREE, block.index, areas.candidates)
            return areas

        for block, areas in in_order(look, self._grid, self._threads):
            holes.add(block, areas)
        hole_of, sizes = holes.solve(np.isin(seeds.classes, self._spec.filled))
        np.add.at(pixels, hole_of[1:], sizes[1:])
        pixels[0] = 0
        return hole_of, holes.offsets

    def _objects(self, block: Block, seeds: _Seeds) -> Stretches:
        if self._rule.reach_px:
            return self._scratch.load(GROWN, block.index, block.box.shape)
        return self._seeds(block, seeds)

    def _seeds(self, block: Block, seeds: _Seeds) -> Stretches:
        parts = self._scratch.load(SEEDS, block.index, block.box.shape)
        return parts.renamed(seeds.of_part[parts.values + seeds.offsets[block.index]])
