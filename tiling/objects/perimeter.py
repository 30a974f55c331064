"""Perimeters as scikit-image counts them (`skimage.measure.perimeter`, 4 neighbours), for all objects of a block.

A pixel is of an outline where one of its four neighbours isn't its object's. By its eight neighbours on the same
outline it adds a straight step, a diagonal one, or the mean of both: counts of each kind, which add up over any
partition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.objects.object_block import ObjectBlock
from tiling.objects.spans import Index

KINDS = 3
STEPS = np.array([1.0, math.sqrt(2), (1 + math.sqrt(2)) / 2])
"""Length of a straight pixel, a diagonal one, and one of both kinds."""

_KIND = np.zeros(50, np.uint8)
_KIND[[5, 7, 15, 17, 25, 27]] = 1
_KIND[[21, 33]] = 2
_KIND[[13, 23]] = 3


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """The outline pixels of a block.

    Attributes:
        places: in the flat labels with their margin.
        objects: the place of each one's object among the block's.
        kinds: 1 straight, 2 diagonal, 3 both, 0 neither.
    """

    places: NDArray[np.intp]
    objects: NDArray[np.integer[Any]]
    kinds: NDArray[np.uint8]

    @classmethod
    def of(cls, block: ObjectBlock, index: Index) -> Outlines:
        """Of a block, in which the margin decides as much as what lies in it."""
        labels = np.ascontiguousarray(block.labels)
        height, width = labels.shape
        down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
        outline = np.zeros((height, width), np.bool_)
        near = outline[1:-1, 1:-1]
        np.logical_or(down[:-1, 1:-1], down[1:, 1:-1], out=near)
        near |= across[1:-1, :-1]
        near |= across[1:-1, 1:]
        near &= labels[1:-1, 1:-1] != 0
        inner = np.flatnonzero(outline[2:-2, 2:-2])
        rows, cols = np.divmod(inner, width - 4)
        places = (rows + 2) * width + cols + 2
        flat, lies = labels.ravel(), outline.ravel()
        own = flat[places]
        code = np.ones(places.size, np.uint8)
        for step, weight in ((1, 2), (width, 2), (width - 1, 10), (width + 1, 10)):
            for near_by in (places - step, places + step):
                code += np.uint8(weight) * (lies[near_by] & (flat[near_by] == own))
        return cls(places, index.at(own), _KIND[code])

    def counts(self, objects: int) -> NDArray[np.int64]:
        """`(object, kind)`: pixels of each kind."""
        combined = self.objects.astype(np.int64) * (KINDS + 1) + self.kinds
        found = np.bincount(combined, minlength=objects * (KINDS + 1))
        return found.reshape(objects, KINDS + 1)[:, 1:].astype(np.int64)

    def touching(self, missing: NDArray[np.bool_], objects: int) -> NDArray[np.bool_]:
        """Which objects share a pixel's edge with a pixel of which nothing is known."""
        flat, width = np.ascontiguousarray(missing).ravel(), missing.shape[1]
        found = np.zeros(self.places.size, np.bool_)
        for step in (1, -1, width, -width):
            found |= flat[self.places + step]
        touched = np.zeros(objects, np.bool_)
        touched[self.objects[found]] = True
        return touched
