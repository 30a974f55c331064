"""Corners of outlines.

An outline is walked with its object on the right: along the top edge of a pixel to the right, down its right edge,
along its bottom edge to the left, up its left edge; outer rings run clockwise on the screen, holes against it. Edges
of one kind that follow each other make a stretch, and corners lie where one stretch ends and the next begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.shapes.band import Band, Flags, Numbers
from tiling.shapes.components import Objects

# Kinds of corners. A corner of one pixel of the object is named by that pixel's place around the corner, one of three
# pixels by the place of the fourth, which is missing.
ONE_SE, ONE_SW, ONE_NW, ONE_NE, MISSING_SE, MISSING_SW, MISSING_NW, MISSING_NE = range(8)

# Of each kind: whether a stretch of top, bottom, right or left edges has an end there, and whether that is its first
# end (the left or upper one).
_TOP = {ONE_SE: True, ONE_SW: False, MISSING_NW: False, MISSING_NE: True}
_BOTTOM = {ONE_NW: False, ONE_NE: True, MISSING_SE: True, MISSING_SW: False}
_RIGHT = {ONE_SW: True, ONE_NW: False, MISSING_SE: True, MISSING_NE: False}
_LEFT = {ONE_SE: True, ONE_NE: False, MISSING_SW: True, MISSING_NW: False}


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Kinds of corners that end a stretch of one kind of edges, and which of them its first end."""

    has: Flags
    is_first: Flags

    @classmethod
    def of(cls, ends: dict[int, bool]) -> Edges:
        kinds = range(8)
        return cls(np.array([kind in ends for kind in kinds]), np.array([ends.get(kind, False) for kind in kinds]))


TOP, BOTTOM, RIGHT, LEFT = (Edges.of(ends) for ends in (_TOP, _BOTTOM, _RIGHT, _LEFT))


@dataclass(frozen=True, slots=True, eq=False)
class Corners:
    """Corners of a band's upper and inner edges; those of its lower edge belong to the next band.

    Attributes:
        places: of the pixel above and left of each, in the band's flat array.
        kinds: of each.
        width: of a row of the band.
        y0: the band's place in the image.
    """

    places: Numbers
    kinds: NDArray[np.uint8]
    width: int
    y0: int

    @property
    def columns(self) -> Numbers:
        return self.places % self.width

    @property
    def rows(self) -> Numbers:
        """Counted from the band's upper edge."""
        return self.places // self.width

    def pixels(self, some: Numbers) -> Numbers:
        """Places of one pixel of the object at each of some corners."""
        offsets = np.array([self.width + 1, self.width, 0, 1, 1, 0, 1, 0])
        return self.places[some] + offsets[self.kinds[some]]


def corners_of(band: Band, objects: Objects) -> Corners:
    """All corners of a band.

    Where two pixels of an object meet only by their corner, the outline passes twice. Where the object is already
    known to be one, its two visits are joined so that rings touch there and none crosses itself.
    """
    width = band.width
    turning = (band.across[:-width] | band.across[width:]) & (band.down[:-1] | band.down[1:])
    places = np.flatnonzero(turning)
    nw, ne, sw, se = (band.flat[places + offset] for offset in (0, 1, width, width + 1))
    top, bottom, left, right = nw == ne, sw == se, nw == sw, ne == se
    falling, rising = nw == se, ne == sw
    # Objects that meet at a point only, and are known to be one.
    falling_one = np.zeros(places.size, np.bool_)
    rising_one = falling_one.copy()
    for crossed, one, offsets in ((falling, falling_one, (0, width + 1)), (rising, rising_one, (1, width))):
        at = np.flatnonzero(crossed & ~top & ~bottom & ~left & ~right & (band.flat[places + offsets[0]] > 0))
        one[at] = objects.at(places[at] + offsets[0]) == objects.at(places[at] + offsets[1])
    kinds = {
        ONE_SE: (se > 0) & ~right & ~bottom & ~falling_one,
        ONE_SW: (sw > 0) & ~left & ~bottom & ~rising_one,
        ONE_NW: (nw > 0) & ~left & ~top & ~falling_one,
        ONE_NE: (ne > 0) & ~right & ~top & ~rising_one,
        MISSING_SE: ((nw > 0) & top & left & ~bottom) | rising_one,
        MISSING_SW: ((nw > 0) & top & right & ~bottom) | falling_one,
        MISSING_NW: ((se > 0) & bottom & right & ~top) | rising_one,
        MISSING_NE: ((se > 0) & bottom & left & ~top) | falling_one,
    }
    found = [np.flatnonzero(there) for there in kinds.values()]
    kind = np.repeat(np.array([*kinds], np.uint8), [each.size for each in found])
    return Corners(places[np.concatenate(found)], kind, width, band.y0)
