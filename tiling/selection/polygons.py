"""Labelled polygons, drawn into any box on demand: what lies under a crop is computed when the crop is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box

Rings = Sequence[npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One labelled area. `edges` are `(n, 4)` of `y0, x0, y1, x1`: every edge of its outline and its holes."""

    label: int
    edges: npt.NDArray[np.float64]

    @classmethod
    def from_rings(cls, label: int, rings: Rings) -> Polygon:
        """A polygon of closed rings `(n, 2)` of `y, x`, in pixels from the corner of the image's first pixel."""
        return cls(label, np.concatenate([np.hstack([ring[:-1], ring[1:]]) for ring in rings]))


class Polygons:
    """Many polygons in pixels of level 0; where some overlap, the last one counts."""

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        self._polygons = tuple(polygons)
        # Rows of y0, x0, y1, x1: a slide holds 100,000 polygons, of which a crop needs a few.
        self._bounds = np.array([_bounds(polygon.edges) for polygon in self._polygons]).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self._polygons)

    def __iter__(self) -> Iterator[Polygon]:
        return iter(self._polygons)

    @property
    def bounds(self) -> npt.NDArray[np.float64]:
        """`(n, 4)` of `y0, x0, y1, x1` around each polygon."""
        return self._bounds

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """The edges of all polygons, `(n, 4)` of `y0, x0, y1, x1`."""
        return np.concatenate([polygon.edges for polygon in self._polygons])

    def labels(self, box: Box, downsample: tuple[float, float] = (1.0, 1.0)) -> npt.NDArray[np.uint8]:
        """Labels of a box of a level whose pixels are `downsample` (y, x) pixels of level 0 long.

        A pixel belongs to a polygon when its centre is inside by the even-odd rule, which makes inner rings
        holes. The labels of a box are the same whatever box they are read as a part of.
        """
        labels_HW = np.zeros(box.shape, np.uint8)
        scale = np.array([*downsample, *downsample])
        for index in self._touching(box, scale):
            polygon = self._polygons[index]
            y0, x0, y1, x1 = self._bounds[index] / scale
            part = box.intersect(Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1)))
            inside_HW = _covered(polygon.edges / scale, part)
            labels_HW[part.relative_to(box).slices][inside_HW] = polygon.label
        return labels_HW

    def touches(self, box: Box, downsample: tuple[float, float] = (1.0, 1.0)) -> bool:
        """True if any polygon's bounds meet the box."""
        return bool(len(self._touching(box, np.array([*downsample, *downsample]))))

    def _touching(self, box: Box, scale: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        bounds = self._bounds / scale
        apart = (bounds[:, 2] <= box.y0) | (bounds[:, 0] >= box.y1) | (bounds[:, 3] <= box.x0)
        return np.flatnonzero(~(apart | (bounds[:, 1] >= box.x1)))


def _bounds(edges: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    y0, x0 = edges[:, :2].min(axis=0)
    y1, x1 = edges[:, :2].max(axis=0)
    return float(y0), float(x0), float(y1), float(x1)


def _covered(edges: npt.NDArray[np.float64], box: Box) -> npt.NDArray[np.bool_]:
    """Mask of the box's pixels whose centre lies inside: along its row, an odd number of edges lies before it."""
    y0, x0, y1, x1 = edges.T
    first, last = (_index_from(np.clip(limit(y0, y1), box.y0, box.y1)) for limit in (np.minimum, np.maximum))
    # Centres at first + 0.5 up to last - 0.5 lie between the edge's ends; an end itself counts to one edge only.
    counts = np.minimum(last, box.y1) - np.minimum(first, box.y1)
    edge = np.repeat(np.arange(len(edges)), counts)
    row = np.arange(len(edge)) - np.repeat(counts.cumsum() - counts, counts) + first[edge]
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = _index_from(np.clip(crossing, box.x0, box.x1)) - box.x0
    crossings_HW = np.zeros((box.height, box.width + 1), np.int32)
    np.add.at(crossings_HW, (row - box.y0, column), 1)
    return (crossings_HW.cumsum(axis=1)[:, :-1] % 2).astype(np.bool_)


def _index_from(position: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """The first pixel whose centre is not before each position."""
    return np.ceil(position - 0.5).astype(np.intp)
