"""`objects.geojson`: RFC 7946 for maps on the web and GIS: longitude and latitude of WGS 84, right-hand rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.warp import transform

from tiling.errors import ExportError
from tiling.export.antimeridian import cut, unrolled
from tiling.export.features import Placed, members, turned, write_features
from tiling.export.finished import Finished
from tiling.export.subject import Subject
from tiling.georeference.crs import crs_of
from tiling.georeference.placement import Affine, Placement, flips, moved
from tiling.shapes import Shapes, subdivided

WGS84 = CRS.from_epsg(4326)
SHARE_OF_PIXEL = 0.01
"""Positions are rounded to less than this share of a mask pixel."""
FEWEST_DECIMALS = 7
"""RFC 7946, section 11.2, recommends six, or about 10 cm."""

SAMPLES = 5
MAX_STRAIGHT_PX = 2**30


def expect_geojson(subject: Subject) -> None:
    """Raise ExportError for an image without a place on the earth, or one around a pole."""
    subject.expect_map("geojson", "qupath, which holds pixels")
    if not np.isfinite(_corners(subject)).all():
        raise ExportError(
            f"geojson holds longitude and latitude, and the corners of {subject.image} have none in its CRS: correct "
            f"the image's georeference, or use geopackage, which keeps the CRS"
        )
    if _holds_a_pole(subject):
        raise ExportError(
            f"geojson holds longitude and latitude, and {subject.image} lies around a pole, where all meridians meet: "
            f"its objects would reach round the earth; use geopackage, which keeps the image's CRS"
        )


def write_geojson(finished: Finished, paths: Sequence[Path]) -> None:
    """Every object with its label, class, pixels and, where it is known, area."""
    subject, affine = finished.subject, _affine(finished.placement)
    pixel = _pixel_degrees(subject)
    decimals = max(FEWEST_DECIMALS, math.ceil(-math.log10(pixel * SHARE_OF_PIXEL)))
    area_name, classes = finished.area_name, finished.classes
    unroll, straight_px = unroller(subject), _straight_px(subject, pixel * SHARE_OF_PIXEL)

    def placed(shapes: Shapes) -> Iterator[Placed]:
        areas = finished.areas(shapes)
        shapes = subdivided(shapes, straight_px)
        points = unroll(moved(affine, shapes.points))
        # Clockwise on the screen is clockwise on a map whose north is up.
        return cut(shapes, turned(shapes, points) if flips(affine) else points, decimals, areas)

    @cache
    def name_of(label: int) -> str:
        return classes[label].name

    def properties(label: int, pixels: int, area: float | None) -> bytes:
        measured = {} if area is None else {area_name: area}
        return members({"label": label, "class": name_of(label), "pixels": pixels, **measured})

    write_features(paths[0], chain.from_iterable(map(placed, finished.shapes)), properties)


def to_wgs84(crs: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map coordinates as longitude and latitude."""
    if crs == WGS84:
        return points
    return np.column_stack(transform(crs, WGS84, points[:, 0], points[:, 1]))


def _crs(subject: Subject) -> Any:
    georeference = subject.placement.georeference
    crs = crs_of(georeference) if georeference is not None else None
    if crs is None:
        raise ExportError(
            f"geojson holds longitude and latitude, and {subject.image} names no CRS: nothing leads there; give the "
            f"image its CRS, or use geopackage, which keeps the image's own coordinates"
        )
    try:
        to_wgs84(crs, np.zeros((1, 2)))
    except CPLE_BaseError as error:
        raise ExportError(
            f"geojson holds longitude and latitude on the earth, and nothing leads there from the CRS "
            f"of {subject.image}, that of a building site, say, or of another planet; use geopackage, which keeps it"
        ) from error
    return crs


def _affine(placement: Placement) -> Affine:
    affine = placement.to_map
    assert affine is not None
    return affine


def unroller(subject: Subject) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """From map coordinates to longitudes without a jump in the image, and latitudes."""
    crs = _crs(subject)
    height, width = subject.shape
    middle = to_wgs84(crs, moved(_affine(subject.placement), np.array([[width / 2, height / 2]])))[0, 0]

    def unroll(points: NDArray[np.float64]) -> NDArray[np.float64]:
        found = to_wgs84(crs, points)
        # Degrees of the image's own CRS have no jump, also where they go past 180.
        around = points[:, 0] if crs.is_geographic else middle
        return np.column_stack([unrolled(found[:, 0], around), found[:, 1]])

    return unroll


def _corners(subject: Subject) -> NDArray[np.float64]:
    height, width = subject.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    return unroller(subject)(moved(_affine(subject.placement), corners))


def _holds_a_pole(subject: Subject) -> bool:
    """True if a pole is a point of the image; in degrees it is a line."""
    crs, (height, width) = _crs(subject), subject.shape
    if crs.is_geographic:
        return False
    a, b, c, d, e, f = _affine(subject.placement)
    for latitude in (-90.0, 90.0):
        x, y = (
            float(value[0]) - at for value, at in zip(transform(WGS84, crs, [0.0], [latitude]), (c, f), strict=True)
        )
        col, row = (e * x - b * y) / (a * e - b * d), (a * y - d * x) / (a * e - b * d)
        if 0 <= col <= width and 0 <= row <= height:
            return True
    return False


def _straight_px(subject: Subject, tolerance: float) -> int:
    """Length of an edge that lies within the tolerance of a straight line between its ends, in degrees.

    RFC 7946, section 3.1.1: a line between two positions is straight in longitude and latitude.
    """
    affine, unroll, shape = _affine(subject.placement), unroller(subject), subject.shape
    length = max(1, min(shape) // SAMPLES)
    rows, cols = np.meshgrid(*(np.linspace(0, side - length, SAMPLES) for side in shape), indexing="ij")
    starts = np.column_stack([cols.ravel(), rows.ravel()])
    worst = 0.0
    for step in ((length, 0), (0, length)):
        first, middle, last = (unroll(moved(affine, starts + np.multiply(step, part))) for part in (0, 0.5, 1))
        worst = max(worst, float(np.abs(middle - (first + last) / 2).max()))
    # How far the middle of an edge strays grows with the square of its length.
    return max(1, int(min(length * math.sqrt(tolerance / max(worst, 1e-300)), MAX_STRAIGHT_PX)))


def _pixel_degrees(subject: Subject) -> float:
    """The shorter side of a pixel, about, in degrees."""
    height, width = subject.shape
    at = _corners(subject)
    sides = np.linalg.norm(at[1] - at[0]) / width, np.linalg.norm(at[3] - at[0]) / height
    return max(float(min(sides)), 1e-15)
