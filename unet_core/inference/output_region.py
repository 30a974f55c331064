"""Output region that is wanted of a read, also mirrored or cut in two. Integers only; no torch tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from unet_core.bounds import Edges, Footprint

Need = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class OutputRegion:
    """The output that is wanted of a read: `(y0, x0, y1, x1)` in output pixels, and which of its sides are image edges.

    `need` counts from the first output pixel of a pass over the read alone, which is the read's corner for
    every network that pads (see `Footprint.need`).
    """

    need: Need
    edges: Edges

    @classmethod
    def whole(cls, height: int, width: int) -> OutputRegion:
        """All of a read that is the whole image: no halo, every side an edge."""
        return cls((0, 0, height, width), Edges(top=True, bottom=True, left=True, right=True))

    @property
    def shape(self) -> tuple[int, int]:
        y0, x0, y1, x1 = self.need
        return y1 - y0, x1 - x0

    @property
    def is_inside(self) -> bool:
        """True if no side is an image edge, as for most tiles of a large image."""
        edges = self.edges
        return not (edges.top or edges.bottom or edges.left or edges.right)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a read: `rows` and `cols` of the read's pixels hold all that `region` needs."""

    rows: slice
    cols: slice
    region: OutputRegion


@dataclass(frozen=True, slots=True)
class Halves:
    """A region in two; their labels, put together along `axis` (0: y, 1: x), are the region's."""

    axis: int
    parts: tuple[Part, Part]


def halve(region: OutputRegion, read_px: tuple[int, int], found: Footprint) -> Halves | None:
    """Cut a region across its longer side, on the stride grid; None where it is one stride wide already.

    Both halves' reads start on the stride grid and hold the footprint's halo, so their labels are the whole's.
    """
    height, width = region.shape
    for axis in (0, 1) if height >= width else (1, 0):
        low, high = region.need[axis], region.need[axis + 2]
        cut = _cut(low, high, axis, found)
        if cut is not None:
            first = _part(region, read_px, found, axis, (low, cut))
            return Halves(axis, (first, _part(region, read_px, found, axis, (cut, high))))
    return None


def _cut(low: int, high: int, axis: int, found: Footprint) -> int | None:
    """The output pixel inside (low, high), nearest to the middle, that lies on the stride grid."""
    scale, offset, stride = found.scale[axis], found.offset[axis], found.stride[axis]
    middle = (Fraction(low + high, 2) + offset) / scale
    near = round(middle / stride)
    cuts = [int(scale * stride * (near + step)) - offset for step in (0, -1, 1)]
    return next((cut for cut in cuts if low < cut < high), None)


def _part(region: OutputRegion, read_px: tuple[int, int], found: Footprint, axis: int, span: tuple[int, int]) -> Part:
    """The part of the read that the outputs `span` along one axis need; the other axis stays whole."""
    halo, scale, offset, stride = found.halo, found.scale[axis], found.offset[axis], found.stride[axis]
    before, after = ((halo.top, halo.bottom), (halo.left, halo.right))[axis]
    core = [(edge + offset) / scale for edge in span]
    start = max(0, (math.floor(core[0]) // stride * stride - before) // stride * stride)
    # The far core edge goes up to the grid before the halo is added: a halo is exact for cores on the grid.
    wanted = math.ceil(core[1] / stride) * stride + after
    # On the grid counted from the read's end: of that of a padded network, whose reads end on it, the same.
    stop = read_px[axis] - max(0, (read_px[axis] - wanted) // stride * stride)
    shift = int(scale * start)
    need, edges = list(region.need), region.edges
    need[axis], need[axis + 2] = span[0] - shift, span[1] - shift
    starts, stops = start == 0, stop == read_px[axis]
    if axis == 0:
        sides = Edges(edges.top and starts, edges.bottom and stops, edges.left, edges.right)
        rows, cols = slice(start, stop), slice(0, read_px[1])
    else:
        sides = Edges(edges.top, edges.bottom, edges.left and starts, edges.right and stops)
        rows, cols = slice(0, read_px[0]), slice(start, stop)
    return Part(rows, cols, OutputRegion((need[0], need[1], need[2], need[3]), sides))
