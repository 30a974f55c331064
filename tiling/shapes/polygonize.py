"""The objects of a whole label image, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tiling.shapes.band import Labels, bands_of
from tiling.shapes.components import Components, Objects
from tiling.shapes.rings import Lines, concatenated
from tiling.shapes.shapes import Shapes
from tiling.shapes.tracing import Tracer


def polygonize(rows: Iterable[Labels]) -> Iterator[Shapes]:
    """The polygons of every label but 0, in the order in which their objects end.

    Args:
        rows: the image from top to bottom, some rows at a time, all of one width. Memory grows with their size, and
            with the outlines of what reaches from one to the next.
    """
    components, tracer, waiting = Components(), Tracer(), _Waiting()
    for band in bands_of(rows):
        objects = components.add(band)
        rings = waiting.exchange(tracer.add(band, objects), objects)
        if rings.size:
            yield Shapes.of(rings, objects)


class _Waiting:
    """Rings of objects that may get more of them.

    They are kept as they came, and joined only when their object ends: an object that reaches through the whole image
    with a million holes is not copied at every band.
    """

    def __init__(self) -> None:
        self._parts: dict[int, list[Lines]] = {}  # by the number that the object has in the coming band

    def exchange(self, rings: Lines, objects: Objects) -> Lines:
        """Take a band's complete rings, and give back all those whose objects end with it."""
        here: dict[int, list[Lines]] = {}
        for number, parts in self._parts.items():
            _append(here, int(objects.of_carried[number]), parts)
        goes_on = objects.reaches_on[rings.objects]
        for number, part in _by_object(rings.where(goes_on)):
            _append(here, number, [part])
        ended = [rings.where(~goes_on)]
        numbers = objects.carried_on()
        self._parts = {}
        for number, parts in here.items():
            if objects.reaches_on[number]:
                self._parts[int(numbers[number])] = parts
            else:
                whole = concatenated(parts)
                ended.append(Lines(np.full(whole.size, number), whole.counts, whole.points))
        return concatenated(ended)


def _append(held: dict[int, list[Lines]], number: int, parts: list[Lines]) -> None:
    """Put parts to those of an object, the fewer ones to the more."""
    known = held.get(number, [])
    fewer, more = sorted((known, parts), key=len)
    more.extend(fewer)
    held[number] = more


def _by_object(rings: Lines) -> Iterator[tuple[int, Lines]]:
    """The rings of each object."""
    if not rings.size:
        return
    order = np.argsort(rings.objects, kind="stable")
    numbers, starts = np.unique(rings.objects[order], return_index=True)
    for number, some in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield number, rings.take(some)
