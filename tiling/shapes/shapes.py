"""Objects as polygons, some thousands at a time, in the layout of Arrow's nested lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiling.shapes.band import Labels, Numbers, spread
from tiling.shapes.components import Objects
from tiling.shapes.rings import Lines, Points, concatenated, untangled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BATCH_POINTS = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """Polygons with their holes.

    Attributes:
        labels: of each object.
        pixels: that each object covers.
        rings: where each polygon's rings begin, and where the last one's end: `(n + 1,)`. The outer ring comes first.
        offsets: where each ring's points begin, and where the last one's end.
        points: `(m, 2)` of x and y in mask pixels; a ring's last point is its first one. Outer rings run clockwise on
            the screen, holes against it.
        ids: the number of each object in the run; empty where objects have none.
    """

    labels: Labels
    pixels: Numbers
    rings: Numbers
    offsets: Numbers
    points: Points
    ids: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    @classmethod
    def of(cls, rings: Lines, objects: Objects) -> Shapes:
        """Of all rings of some of the objects; those that came from above may still touch themselves."""
        old = rings.objects < objects.of_carried.size
        rings = concatenated([untangled(rings.where(old)), rings.where(~old)])
        areas = rings.areas()
        rings = rings.take(np.lexsort((areas < 0, rings.objects)))
        numbers, per_object = np.unique(rings.objects, return_counts=True)
        closed = spread(rings.starts, rings.counts + 1)
        offsets = np.concatenate([[0], (rings.counts + 1).cumsum()])
        closed[offsets[1:] - 1] = rings.starts
        return cls(
            objects.labels[numbers],
            objects.pixels[numbers],
            np.concatenate([[0], per_object.cumsum()]),
            offsets,
            rings.points[closed],
        )

    @classmethod
    def joined(cls, parts: Sequence[Shapes]) -> Shapes:
        """All shapes of all parts, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.pixels for part in parts]),
            _following([part.rings for part in parts]),
            _following([part.offsets for part in parts]),
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.ids for part in parts]),
        )

    def __len__(self) -> int:
        return self.labels.size

    def __iter__(self) -> Iterator[tuple[int, list[Points]]]:
        """Label and rings of each polygon."""
        for index, label in enumerate(self.labels.tolist()):
            yield (
                label,
                [
                    self.points[self.offsets[ring] : self.offsets[ring + 1]]
                    for ring in range(self.rings[index], self.rings[index + 1])
                ],
            )

    def where(self, wanted: NDArray[np.bool_]) -> Shapes:
        """Some of the objects."""
        of_object = np.diff(self.rings)
        rings = np.repeat(wanted, of_object)
        lengths = np.diff(self.offsets)
        return Shapes(
            self.labels[wanted],
            self.pixels[wanted],
            np.concatenate([[0], of_object[wanted].cumsum()]),
            np.concatenate([[0], lengths[rings].cumsum()]),
            self.points[np.repeat(rings, lengths)],
            self.ids[wanted] if self.ids.size else self.ids,
        )

    def polygons(self, points: NDArray[np.float64] | None = None) -> NDArray[Any]:
        """As shapely polygons, of the points at other places where those are given."""
        import shapely

        return shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, self.points if points is None else points, (self.offsets, self.rings)
        )


def in_larger_batches(batches: Iterable[Shapes], points: int = BATCH_POINTS) -> Iterator[Shapes]:
    """The same shapes in the same order, batches together as far as they have no more than so many points."""
    waiting: list[Shapes] = []
    count = 0
    for shapes in batches:
        if waiting and count + len(shapes.points) > points:
            yield Shapes.joined(waiting)
            waiting, count = [], 0
        waiting.append(shapes)
        count += len(shapes.points)
    if waiting:
        yield Shapes.joined(waiting)


def _following(bounds: Sequence[Numbers]) -> Numbers:
    """Bounds of parts that follow each other, each of which begins with 0."""
    ends = np.cumsum([0, *(int(each[-1]) for each in bounds[:-1])])
    return np.concatenate([[0], *(each[1:] + end for each, end in zip(bounds, ends.tolist(), strict=True))])
