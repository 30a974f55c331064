"""The way from coordinates in any CRS to the pixels of an image, edge by edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_BaseError
from rasterio.warp import transform

from tiling.errors import AnnotationError
from tiling.sources.facts import Georeference

Points = npt.NDArray[np.float64]

TOLERANCE_PX = 0.002
"""How far an edge may lie from its place: an edge that is straight in one CRS is a curve in another."""

_MOST_HALVINGS = 20
_MOST_POINTS = 4_000_000
_LONG_PX = 64.0
_HALVED_FIRST = 3
"""Longer edges are halved that often before one is believed to be straight: a curve may pass its chord's middle."""


def to_pixels(where: str, georeference: Georeference, given: Any, own: Any) -> Callable[[Points], Points]:
    """From rings of x and y in the CRS `given` to rings of y and x in pixels of level 0.

    `own` is the image's CRS. Where both are the same, or one isn't known, coordinates are the image's own.

    Raises:
        AnnotationError: the image's geotransform can't be inverted, or nothing leads from one CRS to the other.
    """
    assert georeference.affine is not None
    a, b, c, d, e, f = georeference.affine
    if a * e == b * d:
        raise AnnotationError(f"{where}: its image's geotransform can't be inverted; georeference the image again")
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))

    def placed(xy: Points) -> Points:
        return ((xy - (c, f)) @ inverse.T)[:, ::-1]

    if given is None or own is None or given == own:
        return placed

    def transformed(xy: Points) -> Points:
        try:
            moved = np.column_stack(transform(given, own, xy[:, 0].tolist(), xy[:, 1].tolist())[:2])
        except CPLE_BaseError as error:
            raise AnnotationError(_nowhere(where, given, own)) from error
        if not np.isfinite(moved).all():
            raise AnnotationError(_nowhere(where, given, own))
        return placed(moved)

    return lambda ring: along_edges(ring, transformed)


def along_edges(ring_xy: Points, place: Callable[[Points], Points]) -> Points:
    """A ring's places, with as many points between its own as its edges need to be followed."""
    points, placed = ring_xy, place(ring_xy)
    ask = np.ones(len(points) - 1, np.bool_)  # edges that aren't known to be straight yet
    for halving in range(_MOST_HALVINGS):
        at = np.flatnonzero(ask)
        if not at.size or len(points) > _MOST_POINTS:
            break
        middles = (points[at] + points[at + 1]) / 2
        seen = place(middles)
        off = np.abs(seen - (placed[at] + placed[at + 1]) / 2).max(axis=1)
        long = np.abs(placed[at + 1] - placed[at]).max(axis=1) > _LONG_PX
        bent = (off > TOLERANCE_PX) | (long & (halving < _HALVED_FIRST))
        where = at[bent] + 1
        points, placed = np.insert(points, where, middles[bent], axis=0), np.insert(placed, where, seen[bent], axis=0)
        ask[at[~bent]] = False
        ask = np.insert(ask, where, True)
    return placed


def _nowhere(where: str, given: Any, own: Any) -> str:
    theirs, ours = given.to_string()[:80], own.to_string()[:80]
    return (
        f"{where}: nothing leads from its coordinates in {theirs} to the image's {ours}, or not "
        f"from all of them; give polygons that lie on the image, or reproject them to its CRS"
    )
