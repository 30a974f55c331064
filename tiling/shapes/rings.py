"""Many lines of points as one array of points and their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.shapes.band import Flags, Numbers, spread

Points = NDArray[np.int32]
"""`(n, 2)` of x and y, in pixels of the image, from the corner of its first one."""


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Lines, or rings whose last point is not repeated.

    Attributes:
        objects: the number of each line's object.
        counts: of each line's points.
        points: of all lines, one line after another.
    """

    objects: Numbers
    counts: Numbers
    points: Points

    @classmethod
    def none(cls) -> Lines:
        empty = np.empty(0, np.int64)
        return cls(empty, empty, np.empty((0, 2), np.int32))

    @property
    def size(self) -> int:
        return self.counts.size

    @property
    def starts(self) -> Numbers:
        """Starts of each line's points."""
        return self.counts.cumsum() - self.counts

    def take(self, some: Numbers) -> Lines:
        """Some of the lines, in that order."""
        counts = self.counts[some]
        return Lines(self.objects[some], counts, self.points[spread(self.starts[some], counts)])

    def where(self, wanted: Flags) -> Lines:
        return Lines(self.objects[wanted], self.counts[wanted], self.points[np.repeat(wanted, self.counts)])

    def numbered(self, numbers: Numbers) -> Lines:
        """With other numbers of the objects: `numbers[i]` in the place of `i`."""
        return Lines(numbers[self.objects], self.counts, self.points)

    def areas(self) -> Numbers:
        """Of rings, in pixels; negative for holes, as they are walked the other way round."""
        starts = self.starts
        following = np.arange(1, len(self.points) + 1)
        following[starts + self.counts - 1] = starts
        x, y = self.points.astype(np.int64).T
        return np.add.reduceat(x * y[following] - x[following] * y, starts) // 2 if self.size else starts


def concatenated(parts: Sequence[Lines]) -> Lines:
    """All lines of all parts."""
    parts = [part for part in parts if part.size]
    if len(parts) < 2:
        return parts[0] if parts else Lines.none()
    return Lines(
        np.concatenate([part.objects for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.points for part in parts]),
    )


def untangled(rings: Lines) -> Lines:
    """Rings none of which passes a point twice: one that does is cut there into two that touch."""
    if not rings.size:
        return rings
    of_point = np.repeat(np.arange(rings.size), rings.counts)
    x, y = rings.points.T
    order = np.lexsort((x, y, of_point))
    again = (np.diff(of_point[order]) == 0) & (np.diff(rings.points[order], axis=0) == 0).all(axis=1)
    if not again.any():
        return rings
    tangled = np.zeros(rings.size, np.bool_)
    tangled[of_point[order][1:][again]] = True
    cut: list[tuple[int, Points]] = []
    for ring in np.flatnonzero(tangled):
        start = rings.starts[ring]
        cut += [(rings.objects[ring], part) for part in _cut(rings.points[start : start + rings.counts[ring]])]
    parts = Lines(
        np.array([number for number, _ in cut]),
        np.array([len(part) for _, part in cut]),
        np.concatenate([part for _, part in cut]),
    )
    return concatenated([rings.where(~tangled), parts])


def _cut(ring: Points) -> list[Points]:
    """The simple rings of one ring: what lies between two visits to a point is a ring of its own."""
    keys = (ring[:, 1].astype(np.int64) << 32 | ring[:, 0]).tolist()
    parts: list[Points] = []
    path: list[int] = []
    place: dict[int, int] = {}
    for index, key in enumerate(keys):
        if key in place:
            first = place[key]
            parts.append(ring[path[first:]])
            for left in path[first:]:
                del place[keys[left]]
            del path[first:]
        place[key] = len(path)
        path.append(index)
    parts.append(ring[path])
    return parts
