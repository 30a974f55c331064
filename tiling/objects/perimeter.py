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

from tiling.objects.object_block import MARGIN
from tiling.objects.spans import Index, RawSpans

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
    def of(cls, labels: NDArray[Any], near: RawSpans, index: Index) -> Outlines:
        """Of contiguous labels with their margin, and the spans within one pixel of the block."""
        flat, (height, width) = labels.ravel(), labels.shape
        places = near.places(width, 0)
        own = np.repeat(near.ids, near.stops - near.starts)
        ends = _ends(flat, width, near, places, own)
        places, own = places[ends], own[ends]
        lies = np.zeros(flat.size, np.bool_)
        lies[places] = True
        rows, cols = np.divmod(places, width)
        inner = (rows >= MARGIN) & (rows < height - MARGIN) & (cols >= MARGIN) & (cols < width - MARGIN)
        places, own = places[inner], own[inner]
        code = np.ones(places.size, np.uint8)
        for step, weight in ((1, 2), (width, 2), (width - 1, 10), (width + 1, 10)):
            for beside in (places - step, places + step):
                code += np.uint8(weight) * (lies[beside] & (flat[beside] == own))
        return cls(places, index.at(own), _KIND[code])

    def counts(self, objects: int) -> NDArray[np.int64]:
        """`(object, kind)`: pixels of each kind."""
        combined = self.objects.astype(np.int64) * (KINDS + 1) + self.kinds
        found = np.bincount(combined, minlength=objects * (KINDS + 1))
        return found.reshape(objects, KINDS + 1)[:, 1:].astype(np.int64)

    def touching(self, missing: NDArray[np.bool_], objects: int) -> NDArray[np.bool_]:
        """Objects that share a pixel's edge with a pixel of which nothing is known."""
        flat, width = np.ascontiguousarray(missing).ravel(), missing.shape[1]
        found = np.zeros(self.places.size, np.bool_)
        for step in (1, -1, width, -width):
            found |= flat[self.places + step]
        touched = np.zeros(objects, np.bool_)
        touched[self.objects[found]] = True
        return touched


def _ends(
    flat: NDArray[Any], width: int, near: RawSpans, places: NDArray[np.int64], own: NDArray[Any]
) -> NDArray[np.bool_]:
    """Pixels of spans of which one of four neighbours is another's; beside them only the ends of a span can be that."""
    ends = flat.take(places + width) != own
    ends |= flat.take(places - width) != own
    counts = near.stops - near.starts
    after = counts.cumsum()
    for at, beside in ((after - counts, near.starts - 1), (after - 1, near.stops)):
        ends[at] |= flat.take(near.rows * width + beside) != near.ids
    return ends
