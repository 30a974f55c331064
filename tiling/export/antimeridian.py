"""Polygons in longitude and latitude, cut at the 180th meridian (RFC 7946, section 3.1.9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.export.features import Placed
from tiling.shapes import Shapes

TURN = 360.0
_SLACK = 1 - 1e-9
"""A point on the 180th meridian, seen from a centre on the zeroth, stays on its side whatever rounding adds to it."""


def unrolled(longitudes: NDArray[np.float64], around: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """The same meridians by numbers within half a turn of others: what lies side by side has numbers side by side."""
    return longitudes - TURN * np.rint((longitudes - around) / TURN * _SLACK)


def cut(
    shapes: Shapes, points: NDArray[np.float64], decimals: int, areas: NDArray[np.float64] | None = None
) -> Iterator[Placed]:
    """Every object by longitudes from -180 to 180; those that cross the meridian between as several polygons.

    Args:
        shapes: objects.
        points: of their rings, by unrolled longitude and latitude; outer rings run anticlockwise.
        decimals: of each number.
        areas: of each object, where they are known.
    """
    starts = shapes.offsets[shapes.rings[:-1]]
    low, high = (by.reduceat(points[:, 0], starts) for by in (np.minimum, np.maximum))
    turns = np.floor(((low + high) / 2 + TURN / 2) / TURN)
    crosses = (low < TURN * turns - TURN / 2) | (high > TURN * turns + TURN / 2)
    lengths = np.diff(np.append(starts, len(points)))
    home = points - np.repeat(np.column_stack([TURN * turns, np.zeros(turns.size)]), lengths, axis=0)
    if not crosses.any():
        yield Placed.of(shapes, home, decimals, areas)
        return
    if not crosses.all():
        kept = shapes.where(~crosses)
        of_kept = None if areas is None else areas[~crosses]
        yield Placed.of(kept, home[np.repeat(~crosses, lengths)], decimals, of_kept)
    of_cut = None if areas is None else areas[crosses]
    yield _in_parts(shapes.where(crosses), points[np.repeat(crosses, lengths)], decimals, of_cut)


def _in_parts(shapes: Shapes, points: NDArray[np.float64], decimals: int, areas: NDArray[np.float64] | None) -> Placed:
    parts = [shapely.multipolygons(brought_home(polygon)) for polygon in shapes.polygons(points)]
    _, places, (offsets, rings, polygons) = shapely.to_ragged_array(parts)
    return Placed(shapes.labels, shapes.pixels, polygons, rings, offsets, places, decimals, areas)


def brought_home(polygon: Any) -> list[Any]:
    """A polygon's pieces on either side of the meridian, each turn brought home."""
    low, south, high, north = polygon.bounds
    first, last = (int(np.floor((side + TURN / 2) / TURN)) for side in (low, high))
    parts: list[Any] = []
    for turn in range(first, last + 1):
        middle = TURN * turn
        piece = shapely.intersection(polygon, shapely.box(middle - TURN / 2, south - 1, middle + TURN / 2, north + 1))
        found = [part for part in shapely.get_parts(piece) if part.geom_type == "Polygon"]
        parts += [_turned_back(part, middle) for part in found]
    return parts


def _turned_back(polygon: Any, middle: float) -> Any:
    moved = shapely.transform(polygon, lambda points: points - [middle, 0.0])
    return shapely.geometry.polygon.orient(moved)
