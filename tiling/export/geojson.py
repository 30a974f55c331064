"""`objects.geojson`: RFC 7946 for maps on the web and GIS: longitude and latitude of WGS 84, right-hand rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from tiling.errors import ExportError
from tiling.export.crs import crs_of
from tiling.export.features import turned, write_features
from tiling.export.finished import Finished
from tiling.export.subject import Subject
from tiling.placement import Affine, Placement, flips, moved
from tiling.shapes import Shapes

WGS84 = CRS.from_epsg(4326)
SHARE_OF_PIXEL = 0.01
"""Positions are rounded to less than this share of a mask pixel."""
FEWEST_DECIMALS = 7
"""RFC 7946, section 11.2, recommends six, or about 10 cm."""


def expect_geojson(subject: Subject) -> None:
    """Raise ExportError for an image without a place on the earth, or one that crosses the 180th meridian."""
    subject.expect_map("geojson", "qupath, which holds pixels")
    longitudes = _corners(subject)[:, 0]
    if not np.isfinite(longitudes).all():
        raise ExportError(
            f"geojson holds longitude and latitude, and the corners of {subject.image} have none in its CRS: correct "
            f"the image's georeference, or use geopackage, which keeps the CRS"
        )
    if np.ptp(longitudes) > 180:
        raise ExportError(
            f"geojson is cut at the 180th meridian (RFC 7946, section 3.1.9), which {subject.image} crosses: its "
            f"objects would reach round the earth; use geopackage, which keeps the image's CRS"
        )


def write_geojson(finished: Finished, paths: Sequence[Path]) -> None:
    """Every object with its label, class, pixels and, where it is known, area."""
    crs, affine = _crs(finished.subject), _affine(finished.placement)
    pixel = _pixel_degrees(finished.subject)
    decimals = max(FEWEST_DECIMALS, math.ceil(-math.log10(pixel * SHARE_OF_PIXEL)))
    area, classes = finished.placement.pixel_area, finished.classes

    def places(shapes: Shapes) -> tuple[NDArray[Any], int]:
        points = to_wgs84(crs, moved(affine, shapes.points))
        # Clockwise on the screen is clockwise on a map whose north is up.
        return turned(shapes, points) if flips(affine) else points, decimals

    @cache
    def name_of(label: int) -> str:
        return classes[label].name

    def properties(label: int, pixels: int) -> dict[str, Any]:
        measured = {} if area is None else {"area_m2": pixels * area}
        return {"label": label, "class": name_of(label), "pixels": pixels, **measured}

    write_features(paths[0], finished.shapes, places, properties)


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
    return crs


def _affine(placement: Placement) -> Affine:
    affine = placement.to_map
    assert affine is not None
    return affine


def _corners(subject: Subject) -> NDArray[np.float64]:
    height, width = subject.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    return to_wgs84(_crs(subject), moved(_affine(subject.placement), corners))


def _pixel_degrees(subject: Subject) -> float:
    """The shorter side of a pixel, about, in degrees."""
    height, width = subject.shape
    at = _corners(subject)
    sides = np.linalg.norm(at[1] - at[0]) / width, np.linalg.norm(at[3] - at[0]) / height
    return max(float(min(sides)), 1e-15)
