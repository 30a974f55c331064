"""Long edges of polygons with points in between, for coordinates in which a straight line becomes a curve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tiling.shapes.band import spread
from tiling.shapes.shapes import Shapes


def subdivided(shapes: Shapes, every_px: int) -> Shapes:
    """The same polygons with a point wherever an edge passes a multiple of some pixels.

    The places are those of the image, not of the edge, so that two polygons that share a part of an edge get the
    same points there.
    """
    start, stop = shapes.points[:-1].astype(np.int64), shapes.points[1:].astype(np.int64)
    is_edge = np.ones(len(start), np.bool_)
    is_edge[shapes.offsets[1:-1] - 1] = False  # from a ring's last point to the next ring's first
    along = (start[:, 0] == stop[:, 0]).astype(np.int64)  # the axis that the edge runs along
    each = np.arange(len(start))
    begin, end = start[each, along], stop[each, along]
    first, last = np.minimum(begin, end) // every_px + 1, (np.maximum(begin, end) - 1) // every_px
    counts = np.where(is_edge, np.maximum(last - first + 1, 0), 0)
    if not counts.any():
        return shapes
    sizes = np.append(counts, 0) + 1
    places = sizes.cumsum() - sizes
    points = np.repeat(shapes.points, sizes, axis=0)
    number = spread(np.zeros_like(counts), counts)
    forward = np.repeat(begin < end, counts)
    multiple = np.where(forward, np.repeat(first, counts) + number, np.repeat(last, counts) - number)
    points[spread(places[:-1] + 1, counts), np.repeat(along, counts)] = multiple * every_px
    return replace(shapes, offsets=np.append(places, len(points))[shapes.offsets], points=points)
