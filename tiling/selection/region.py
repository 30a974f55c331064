"""A part of an image that a person names: in pixels, in map coordinates, or by polygons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiling.errors import PlanError
from tiling.selection.outline import Outline
from tiling.source import ImageSource
from tiling.view import View

_ROUNDING_PX = 1e-3
_POLYGONS = {".geojson", ".json"}


@dataclass(frozen=True, slots=True)
class Region:
    """Bounds `y0, x0, y1, x1` in pixels of level 0, and the polygons that they are of."""

    bounds: tuple[float, float, float, float]
    outline: Outline | None = None

    @classmethod
    def parse(cls, text: str, source: ImageSource) -> Region:
        """Read `Y0,X0,Y1,X1`, `map:XMIN,YMIN,XMAX,YMAX` or the path of a GeoJSON file.

        Raises:
            PlanError: none of these, or map coordinates on an image that isn't on a map.
            AnnotationError: a file without polygons on the image.
        """
        image = source.levels[0].box
        if Path(text).suffix.lower() in _POLYGONS:
            outline = Outline.read(Path(text), source.georeference, image, source.bounds_px)
            return cls(outline.bounds, outline)
        kind, _, rest = text.rpartition(":")
        try:
            numbers = [float(part) for part in rest.split(",")]
        except ValueError:
            numbers = []
        if kind not in {"", "map"} or len(numbers) != 4 or not np.isfinite(numbers).all():
            raise PlanError(
                f"--region {text} names no part of the image; give Y0,X0,Y1,X1 in pixels of level 0, "
                f"map:XMIN,YMIN,XMAX,YMAX, or a .geojson file"
            )
        first, second, third, fourth = numbers
        if first >= third or second >= fourth:
            raise PlanError(f"--region {text} ends before it starts; give the smaller coordinates first")
        return cls(_from_map(text, (first, second, third, fourth), source) if kind else (first, second, third, fourth))

    def on(self, view: View, height: int, width: int) -> tuple[int, int, int, int]:
        """The region in the view's pixels, clipped to a level of that size; a pixel that it meets belongs to it.

        Raises:
            PlanError: it lies outside the image.
        """
        whole, (pixel_y, pixel_x) = view.whole(height, width), view.pixel_px
        y0, x0, y1, x1 = self.bounds
        top, left = max(0, _floor(y0 / pixel_y)), max(0, _floor(x0 / pixel_x))
        bottom, right = min(whole.height, _ceil(y1 / pixel_y)), min(whole.width, _ceil(x1 / pixel_x))
        if top >= bottom or left >= right:
            raise PlanError(
                f"the region from {y0:.6g},{x0:.6g} to {y1:.6g},{x1:.6g} px lies outside the image of "
                f"{whole.height * pixel_y:.6g} x {whole.width * pixel_x:.6g} px: nothing would be segmented; give one "
                f"that meets it"
            )
        return top, left, bottom, right


def _from_map(
    text: str, bounds: tuple[float, float, float, float], source: ImageSource
) -> tuple[float, float, float, float]:
    """The pixels around a rectangle of map coordinates; on a rotated image, those around its corners."""
    reference = source.georeference
    if reference is None or reference.affine is None:
        raise PlanError(f"--region {text}: {source.path} has no geotransform; give Y0,X0,Y1,X1 in pixels of level 0")
    a, b, c, d, e, f = reference.affine
    if a * e == b * d:
        raise PlanError(f"--region {text}: the geotransform of {source.path} can't be inverted; give pixels of level 0")
    x_min, y_min, x_max, y_max = bounds
    corners = np.array([(x, y) for x in (x_min, x_max) for y in (y_min, y_max)])
    cols, rows = np.linalg.inv(np.array([[a, b], [d, e]])) @ (corners - (c, f)).T
    return float(rows.min()), float(cols.min()), float(rows.max()), float(cols.max())


def _floor(value: float) -> int:
    """A thousandth of a pixel takes no further pixel in: transformations between CRS are no better."""
    return math.floor(value + _ROUNDING_PX)


def _ceil(value: float) -> int:
    return math.ceil(value - _ROUNDING_PX)
