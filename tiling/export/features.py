"""GeoJSON of any number of polygons, written as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.shapes import Shapes

_HEAD = b'{"type":"FeatureCollection","features":[\n'
_ONE = b'{"type":"Feature","geometry":{"type":"Polygon","coordinates":%b}'
_SEVERAL = b'{"type":"Feature","geometry":{"type":"MultiPolygon","coordinates":[%b]}'
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_ZERO = ord("0")


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Objects where a file says that they lie.

    Attributes:
        labels: of each object.
        pixels: that each object covers.
        polygons: where each object's polygons begin, and where the last one's end: `(n + 1,)`.
        rings: the same of each polygon's rings.
        offsets: the same of each ring's points.
        points: `(m, 2)` of x and y.
        decimals: of each number.
        areas: of each object; None where they aren't known.
        more: text of further properties of each object, a comma ahead of each; None where there are none.
    """

    labels: NDArray[np.integer]
    pixels: NDArray[np.int64]
    polygons: NDArray[np.integer]
    rings: NDArray[np.integer]
    offsets: NDArray[np.integer]
    points: NDArray[Any]
    decimals: int
    areas: NDArray[np.float64] | None = None
    more: Sequence[bytes] | None = None

    @classmethod
    def of(
        cls,
        shapes: Shapes,
        points: NDArray[Any],
        decimals: int,
        areas: NDArray[np.float64] | None = None,
        more: Sequence[bytes] | None = None,
    ) -> Placed:
        """Of objects of one polygon each."""
        polygons = np.arange(len(shapes) + 1)
        return cls(shapes.labels, shapes.pixels, polygons, shapes.rings, shapes.offsets, points, decimals, areas, more)


def write_features(
    path: Path, batches: Iterable[Placed], properties: Callable[[int, int, float | None], bytes]
) -> None:
    """Write a collection with one feature per object, one on each line.

    Args:
        path: the file.
        batches: of objects.
        properties: text of an object's, as `members` gives it, by its label, its pixels and its area where that is
            known.
    """
    separator = _HEAD
    with path.open("wb") as file:
        for placed in batches:
            lines: list[bytes] = []
            labels, pixels = placed.labels.tolist(), placed.pixels.tolist()
            areas = repeat(None, len(labels)) if placed.areas is None else placed.areas.tolist()
            more = repeat(b"", len(labels)) if placed.more is None else placed.more
            described = map(properties, labels, pixels, areas)
            for feature, members_, besides in zip(_features(placed), described, more, strict=True):
                lines.append(b'%b%b,"properties":{%b%b}}' % (separator, feature, members_, besides))
                separator = b",\n"
            file.write(b"".join(lines))
        file.write(b"%b\n]}\n" % (_HEAD if separator == _HEAD else b""))


def members(described: Mapping[str, Any]) -> bytes:
    """Members of a JSON object as text, without the braces around them."""
    return _encode(described)[1:-1].encode()


def _features(placed: Placed) -> Iterable[bytes]:
    """The geometry of each object as text."""
    text, starts = positions(placed.points, placed.decimals)
    # A ring is what its positions are, without the last one's comma.
    ends = starts[placed.offsets].tolist()
    rings = [b"[%b]" % text[start : end - 1] for start, end in pairwise(ends)]
    polygons = [b"[%b]" % b",".join(rings[first:last]) for first, last in pairwise(placed.rings.tolist())]
    for first, last in pairwise(placed.polygons.tolist()):
        yield (_ONE if last - first == 1 else _SEVERAL) % b",".join(polygons[first:last])


def turned(shapes: Shapes, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in which every ring runs the other way round."""
    lengths = np.diff(shapes.offsets)
    ends = np.repeat(shapes.offsets[:-1] + shapes.offsets[1:] - 1, lengths)
    return points[ends - np.arange(len(points))]


def positions(points: NDArray[np.generic], decimals: int) -> tuple[bytes, NDArray[np.int64]]:
    """Every point as `[x,y],`, all of them one after another, and where each begins; `(n + 1,)`.

    Args:
        points: `(n, 2)` of x and y.
        decimals: of each number, all of which are written.
    """
    size = len(points)
    columns: list[NDArray[np.uint8]] = []
    kept: list[NDArray[np.bool_]] = []
    for axis, (before, after) in enumerate((("[", ","), ("", "],"))):
        x = points[:, axis]
        # Whole numbers from here on: how many of the last decimal.
        whole = x.astype(np.int64) if decimals == 0 and x.dtype.kind == "i" else _whole(x, decimals)
        _constant(columns, kept, before, size)
        columns.append(np.full(size, ord("-"), np.uint8))
        kept.append(whole < 0)
        _digits(columns, kept, np.abs(whole), decimals)
        _constant(columns, kept, after, size)
    keep = np.stack(kept, axis=1)
    text = np.stack(columns, axis=1)[keep].tobytes()
    starts = np.zeros(size + 1, np.int64)
    np.cumsum(keep.sum(axis=1), out=starts[1:])
    return text, starts


def _whole(x: NDArray[np.generic], decimals: int) -> NDArray[np.int64]:
    return np.rint(x.astype(np.float64) * 10.0**decimals).astype(np.int64)


def _constant(columns: list[NDArray[np.uint8]], kept: list[NDArray[np.bool_]], text: str, size: int) -> None:
    for character in text:
        columns.append(np.full(size, ord(character), np.uint8))
        kept.append(np.ones(size, np.bool_))


def _digits(
    columns: list[NDArray[np.uint8]], kept: list[NDArray[np.bool_]], whole: NDArray[np.int64], decimals: int
) -> None:
    """Digits from the first one of the greatest number on; zeros ahead of a number's own first digit are left out."""
    count = max(len(str(whole.max(initial=0))), decimals + 1)
    rest = whole.astype(np.uint32) if count < 10 else whole
    digits: list[NDArray[np.uint8]] = []
    wanted: list[NDArray[np.bool_]] = []
    for place in range(count):
        wanted.append(rest > 0 if place > decimals else np.ones(rest.size, np.bool_))
        rest, digit = np.divmod(rest, rest.dtype.type(10))
        digits.append(digit.astype(np.uint8) + np.uint8(_ZERO))
    if decimals:
        digits.insert(decimals, np.full(whole.size, ord("."), np.uint8))
        wanted.insert(decimals, np.ones(whole.size, np.bool_))
    columns.extend(reversed(digits))
    kept.extend(reversed(wanted))
