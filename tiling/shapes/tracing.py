"""Outlines followed from corner to corner, and from band to band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order

from tiling.shapes.band import Band, Flags, Numbers, spread
from tiling.shapes.components import Objects
from tiling.shapes.corners import BOTTOM, LEFT, RIGHT, TOP, Corners, Edges, corners_of
from tiling.shapes.rings import Lines

_NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False)
class _Open:
    """Outlines that leave the band below: each came up a left edge, and goes down a right one.

    Attributes:
        lines: their points so far.
        from_x: the column of the left edge that each comes from.
        to_x: the column of the right edge that each goes on with.
    """

    lines: Lines
    from_x: Numbers
    to_x: Numbers


class Tracer:
    """Gives the rings of band after band; what it remembers is the outlines that the band's last row cuts."""

    def __init__(self) -> None:
        none = np.empty(0, np.int64)
        self._open = _Open(Lines.none(), none, none)

    def add(self, band: Band, objects: Objects) -> Lines:
        """The rings that are complete with this band, under the band's numbers of their objects."""
        corners = corners_of(band, objects)
        new, held = corners.kinds.size, self._open.lines.size
        # Nodes: the corners, then the ends below of what came in from above, then its ends above.
        ends = new + np.arange(held)
        following = self._links(corners, ends, ends + held)
        if not following.size:
            return Lines.none()
        order, counts = _paths(following)
        firsts = order[counts.cumsum() - counts]
        is_open = ~_followed(following)[firsts]
        lines = self._lines(corners, objects, order, counts, firsts)
        columns = np.concatenate([corners.columns, self._open.to_x, self._open.from_x])
        lasts = order[counts.cumsum() - 1]
        going_on = lines.where(is_open).numbered(objects.carried_on())
        self._open = _Open(going_on, columns[firsts[is_open]], columns[lasts[is_open]])
        return lines.where(~is_open)

    def _links(self, corners: Corners, tails: Numbers, heads: Numbers) -> Numbers:
        """The node that follows each node on its outline; -1 where that lies below the band."""
        following = np.full(corners.kinds.size + 2 * tails.size, _NOWHERE)
        following[heads] = tails  # through the points that are known already
        across, x = corners.places, corners.columns
        for edges, forward in ((TOP, True), (BOTTOM, False)):
            at, is_first = _ends(edges, corners)
            _link(following, at, across[at], is_first, forward=forward)
        # Column by column, and in each from the top; what came in from above lies above all.
        tall = 1 + (corners.rows.max() if x.size else 0)
        down = x * (tall + 1) + corners.rows + 1
        for edges, forward, outer, columns in (
            (RIGHT, True, tails, self._open.to_x),
            (LEFT, False, heads, self._open.from_x),
        ):
            at, is_first = _ends(edges, corners)
            places = np.concatenate([columns * (tall + 1), down[at]])
            first = np.concatenate([np.ones(outer.size, np.bool_), is_first])
            _link(following, np.concatenate([outer, at]), places, first, forward=forward)
        return following

    def _lines(self, corners: Corners, objects: Objects, order: Numbers, counts: Numbers, firsts: Numbers) -> Lines:
        """The points along paths through nodes, and the objects that they outline."""
        new, known = corners.kinds.size, self._open.lines
        points = np.empty((new + len(known.points), 2), np.int32)
        points[:new, 0] = corners.columns
        points[:new, 1] = corners.rows + corners.y0
        points[new:] = known.points
        # A corner stands for itself, the end above for all points on the way to the end below.
        per_node = np.concatenate([np.ones(new, np.int64), np.zeros(known.size, np.int64), known.counts])
        start = np.concatenate([np.arange(new), np.zeros(known.size, np.int64), new + known.starts])
        numbers = np.empty(firsts.size, np.int64)
        fresh = firsts < new
        numbers[fresh] = objects.at(corners.pixels(firsts[fresh]))
        numbers[~fresh] = objects.of_carried[known.objects[(firsts[~fresh] - new) % max(1, known.size)]]
        in_order = per_node[order]
        sums = np.add.reduceat(in_order, counts.cumsum() - counts)
        return Lines(numbers, sums, points[spread(start[order], in_order)])


def _ends(edges: Edges, corners: Corners) -> tuple[Numbers, Flags]:
    """The corners that end stretches of such edges, and whether each is the first end."""
    at = np.flatnonzero(edges.has[corners.kinds])
    return at, edges.is_first[corners.kinds[at]]


def _link(following: Numbers, nodes: Numbers, places: Numbers, is_first: Flags, *, forward: bool) -> None:
    """Join the two ends of each stretch: sorted by place, a first end is followed by its other end.

    Where one stretch ends and another begins, the end comes first. A first end without another is left open.
    """
    order = np.argsort(2 * places + is_first, kind="stable")
    nodes, is_first = nodes[order], is_first[order]
    first = np.flatnonzero(is_first[:-1] & ~is_first[1:])
    start, stop = (nodes[first], nodes[first + 1]) if forward else (nodes[first + 1], nodes[first])
    following[start] = stop


def _followed(following: Numbers) -> Flags:
    """Mask of the nodes that follow another one."""
    followed = np.zeros(following.size, np.bool_)
    followed[following[following >= 0]] = True
    return followed


def _paths(following: Numbers) -> tuple[Numbers, Numbers]:
    """All nodes path by path, and how many each path has; a closed path begins anywhere, an open one at its start.

    The paths are strung together into one, which a walk in compiled code then gives in order.
    """
    size = following.size
    linked = following >= 0
    of_node = connected_components(_graph(following, linked), directed=False)[1]
    first = np.empty(of_node.max() + 1, np.int64)
    first[of_node[::-1]] = np.arange(size)[::-1]
    starts = np.flatnonzero(~_followed(following))
    first[of_node[starts]] = starts
    one = following.copy()
    opened = np.zeros(size, np.bool_)
    opened[first] = True
    ends = np.flatnonzero(~linked | opened[following])
    one[ends] = np.append(first[1:], _NOWHERE)[of_node[ends]]
    order = depth_first_order(_graph(one, one >= 0), first[0], return_predecessors=False)
    return order.astype(np.int64), np.bincount(of_node)


def _graph(following: Numbers, linked: Flags) -> csr_array:
    pointers = np.zeros(following.size + 1, np.int32)
    np.cumsum(linked, out=pointers[1:])
    targets = following[linked].astype(np.int32)
    return csr_array((np.ones(targets.size), targets, pointers), shape=(following.size, following.size))
