"""GeoJSON of any number of polygons, written as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.export.numerals import positions
from tiling.shapes import Shapes

Places = Callable[[Shapes], tuple[NDArray[Any], int]]

_HEAD = b'{"type":"FeatureCollection","features":[\n'
_FEATURE = b'{"type":"Feature","geometry":{"type":"Polygon","coordinates":['
_COMPACT = (",", ":")


def write_features(
    path: Path, batches: Iterable[Shapes], places: Places, properties: Callable[[int, int], Mapping[str, Any]]
) -> None:
    """Write a collection with one feature per object, one on each line.

    Args:
        path: the file.
        batches: of objects.
        places: where the points of a batch lie, as `(n, 2)` of numbers, and how many decimals these have.
        properties: of an object, by its label and its pixels.
    """
    separator = _HEAD
    with path.open("wb") as file:
        for shapes in batches:
            for polygon, label, pixels in zip(_polygons(shapes, places), shapes.labels, shapes.pixels, strict=True):
                described = properties(int(label), int(pixels))
                end = json.dumps(described, separators=_COMPACT, ensure_ascii=False).encode()
                file.write(b'%b%b%b]},"properties":%b}' % (separator, _FEATURE, polygon, end))
                separator = b",\n"
        file.write(b"%b\n]}\n" % (_HEAD if separator == _HEAD else b""))


def _polygons(shapes: Shapes, places: Places) -> Iterable[bytes]:
    """The rings of each polygon as text."""
    text, starts = positions(*places(shapes))
    # A ring is what its positions are, without the last one's comma.
    ends = starts[shapes.offsets].tolist()
    rings = [b"[%b]" % text[start : end - 1] for start, end in pairwise(ends)]
    firsts = shapes.rings.tolist()
    return (b",".join(rings[first:last]) for first, last in pairwise(firsts))


def turned(shapes: Shapes, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in which every ring runs the other way round."""
    lengths = np.diff(shapes.offsets)
    ends = np.repeat(shapes.offsets[:-1] + shapes.offsets[1:] - 1, lengths)
    return points[ends - np.arange(len(points))]
