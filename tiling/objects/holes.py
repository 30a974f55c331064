"""Holes of objects: areas of no object that touch one object alone, and neither the image's edge nor what has no class.

A hole can be as large as the image, so nothing of it is decided within a block: its parts are joined over the borders
as objects are, and with them the least and the greatest number of an object that they touch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.objects.blocks import Block
from tiling.objects.stretches import Edges, Stretches
from tiling.objects.union import Seams, Union, distinct

CLOSED = -1
"""The number of what has no class, and of all beyond the image: what touches it is no hole."""
_NOBODY = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, eq=False)
class FreeAreas:
    """The areas of a block that are no object's.

    Attributes:
        candidates: their stretches by their numbers from 1, but of those that are known to be no holes.
        least, greatest: the numbers of objects that each touches.
        pixels: of each.
        edges: the areas on the block's edges.
        occupied: the objects there.
    """

    candidates: Stretches
    least: NDArray[np.int32]
    greatest: NDArray[np.int32]
    pixels: NDArray[np.int64]
    edges: Edges
    occupied: Edges

    @classmethod
    def of(cls, taken: Stretches, block: Box, image: Box) -> FreeAreas:
        """Of a block whose objects, and what has no class, are `taken`."""
        free = taken.gaps()
        of_stretch = free.components()
        count = int(of_stretch.max(initial=0))
        least, greatest = np.full(count, _NOBODY, np.int32), np.full(count, CLOSED, np.int32)
        above, below = taken.touching_below(free), free.touching_below(taken)
        for area, other in (free.beside(taken), above[::-1], below):
            _extend(least, greatest, of_stretch[area] - 1, taken.values[other])
        at_edge = _at_image_edge(free, block, image)
        least[of_stretch[at_edge] - 1] = CLOSED
        pixels = np.bincount(of_stretch, weights=free.pixels, minlength=count + 1)[1:].astype(np.int64)
        may_be = (least != CLOSED) & ((least == greatest) | (least == _NOBODY))
        numbered = free.valued(of_stretch)
        candidates = numbered.valued(np.where(may_be[of_stretch - 1], of_stretch, 0).astype(np.int32))
        return cls(candidates, least, greatest, pixels, numbered.edges(), taken.edges())


class Holes:
    """Holes of the whole image, from the free areas of block after block."""

    def __init__(self) -> None:
        self._union = Union()
        self._free, self._taken = Seams(), Seams()
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]] = []
        self._touching: list[NDArray[np.int32]] = []
        self.offsets: list[int] = []

    def add(self, block: Block, areas: FreeAreas) -> None:
        """Take in a block; they come row by row."""
        offset = self._union.add(areas.pixels.size)
        self.offsets.append(offset)
        self._parts.append((areas.least, areas.greatest, areas.pixels))
        free = self._free.add(block, areas.edges.raised(offset))
        taken = self._taken.add(block, areas.occupied)
        for (free_there, free_here), (taken_there, taken_here) in zip(free, taken, strict=True):
            self._union.join(free_there, free_here)
            self._touching.append(distinct(free_there, taken_here, (free_there > 0) & (taken_here != 0)))
            self._touching.append(distinct(free_here, taken_there, (free_here > 0) & (taken_there != 0)))

    def solve(self, may_be_filled: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The object that each part of a free area is a hole of, 0 for none, with a 0 before all; and its pixels.

        `may_be_filled` says of each object's number, from 0, whether its holes are filled.
        """
        whole = self._union.solve()
        none = np.empty(0, np.int32)
        least = np.concatenate([none, *(part[0] for part in self._parts)])
        greatest = np.concatenate([none, *(part[1] for part in self._parts)])
        pixels = np.concatenate([np.zeros(1, np.int64), *(part[2] for part in self._parts)])
        pairs = np.concatenate([np.empty((2, 0), np.int32), *self._touching], axis=1)
        lows = np.full(int(whole.max()) + 1, _NOBODY, np.int32)
        highs = np.full(lows.size, CLOSED, np.int32)
        np.minimum.at(lows, whole[1:], least)
        np.maximum.at(highs, whole[1:], greatest)
        _extend(lows, highs, whole[pairs[0]], pairs[1])
        is_hole = (lows == highs) & (lows > 0)
        is_hole &= may_be_filled[np.where(is_hole, lows, 0)]
        return np.where(is_hole, lows, 0).astype(np.int32)[whole], pixels


def _extend(
    least: NDArray[np.int32], greatest: NDArray[np.int32], areas: NDArray[np.integer], others: NDArray[np.int32]
) -> None:
    np.minimum.at(least, areas, others)
    np.maximum.at(greatest, areas, others)


def _at_image_edge(free: Stretches, block: Box, image: Box) -> NDArray[np.bool_]:
    height, width = free.shape
    found = np.zeros(free.size, np.bool_)
    if block.y0 == image.y0:
        found |= free.starts < width
    if block.y1 == image.y1:
        found |= free.starts >= (height - 1) * width
    if block.x0 == image.x0:
        found |= free.starts % width == 0
    if block.x1 == image.x1:
        found |= free.stops % width == 0
    return found
