"""Areas on the ground, where a map's own plane doesn't show them: on the ellipsoid of the map's CRS.

Longitude and the ellipsoid's authalic ordinate (Snyder, Map Projections, USGS 1395, eq. 3-12) are coordinates whose
plane areas are those on the ellipsoid: a polygon's is summed over its edges, however large it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import ProjError

from tiling.geometry import Box
from tiling.georeference.placement import Affine, Placement, moved
from tiling.shapes import Shapes, subdivided

TRUE_SCALE = 1e-3
"""By which share lengths of a map may be off before areas are taken from the ellipsoid."""

_SAMPLES = 5
_STRAIGHT = 128
"""Into how many parts a side of the mask is cut for its edges to be followed."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The way from a mask's pixels to areas on the ellipsoid, in square metres.

    Attributes:
        to_map: from mask pixels to map coordinates.
        shape: of the mask: height and width.
        is_geographic: whether map coordinates are longitude and latitude.
    """

    to_map: Affine
    shape: tuple[int, int]
    is_geographic: bool
    _to_degrees: Any
    _radians: float
    _semi_major_m: float
    _eccentricity: float

    @classmethod
    def of(cls, placement: Placement, shape: tuple[int, int]) -> Ground | None:
        """Of a mask; None where the map's own plane shows areas well enough, or nothing says where it lies."""
        reference, to_map = placement.georeference, placement.to_map
        if reference is None or reference.wkt is None or to_map is None:
            return None
        if to_map[0] * to_map[4] == to_map[1] * to_map[3]:
            return None  # pixels without an area
        try:
            crs = pyproj.CRS.from_wkt(reference.wkt)
            geodetic = crs.geodetic_crs
            if geodetic is None or geodetic.ellipsoid is None:
                return None
            size = geodetic.ellipsoid
            flattening = 1 / size.inverse_flattening if size.inverse_flattening else 0.0
            ground = cls(
                to_map,
                shape,
                bool(crs.is_geographic),
                None if crs.is_geographic else pyproj.Transformer.from_crs(crs, geodetic, always_xy=True),
                float(geodetic.axis_info[0].unit_conversion_factor),
                float(size.semi_major_metre),
                math.sqrt(flattening * (2 - flattening)),
            )
            return ground if ground.is_geographic or ground._is_off() else None
        except ProjError:
            return None

    @property
    def total(self) -> float:
        """Of the whole mask."""
        height, width = self.shape
        return self.of_box(Box(0, 0, height, width))

    @property
    def sides_at_middle(self) -> tuple[float, float] | None:
        """Sides of the middle pixel along y and x, in metres; None where it lies outside of the projection."""
        height, width = self.shape
        col, row = width / 2, height / 2
        ends = np.array([[col, row - 0.5], [col, row + 0.5], [col - 0.5, row], [col + 0.5, row]])
        (top, bottom, left, right) = self._degrees(ends) * self._radians
        geod = pyproj.Geod(a=self._semi_major_m, es=self._eccentricity**2)
        try:
            y = geod.inv(*top, *bottom, radians=True)[2]
            x = geod.inv(*left, *right, radians=True)[2]
        except ProjError:  # beyond a pole
            return None
        return (float(y), float(x)) if 0 < y < math.inf and 0 < x < math.inf else None

    def of_box(self, box: Box) -> float:
        """Of a rectangle of mask pixels."""
        ring = np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1], [box.x0, box.y0]])
        one = np.array([0, 1])
        shapes = Shapes(np.zeros(1, np.uint8), np.array([box.area]), one, np.array([0, 5]), ring.astype(np.int32))
        return float(self.of_shapes(shapes)[0])

    def of_shapes(self, shapes: Shapes) -> Floats:
        """Of each object; NaN where the projection doesn't reach all of it."""
        if not len(shapes):
            return np.empty(0)
        dense = subdivided(shapes, max(1, max(self.shape) // _STRAIGHT))
        points = self._flat(dense.points)
        starts = dense.offsets[dense.rings[:-1]]
        # Small against the globe: what differs from the object's first point keeps its digits.
        points -= np.repeat(points[starts], np.diff(np.append(starts, len(points))), axis=0)
        x, y = points.T
        crossed = np.zeros(len(points))
        crossed[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
        crossed[dense.offsets[1:] - 1] = 0.0  # from a ring's last point to the next ring's first
        return np.abs(np.add.reduceat(crossed, starts)) / 2

    def _is_off(self) -> bool:
        """True if lengths on the map are another than on the ground anywhere on the mask."""
        a, b, _, d, e, _ = self.to_map
        height, width = self.shape
        rows, cols = np.meshgrid(*(np.linspace(0, side, _SAMPLES) for side in (height, width)), indexing="ij")
        corners = np.column_stack([cols.ravel(), rows.ravel()])
        step = max(1.0, min(height, width) / 100)
        along, down = (self._flat(corners + add) - self._flat(corners) for add in ([step, 0.0], [0.0, step]))
        there = np.abs(along[:, 0] * down[:, 1] - along[:, 1] * down[:, 0]) / (step * step * abs(a * e - b * d))
        metres = self._metres_per_unit()
        scale = np.sqrt(there[np.isfinite(there)]) / metres
        return bool(scale.size) and bool((np.abs(scale - 1) > TRUE_SCALE).any())

    def _metres_per_unit(self) -> float:
        source = self._to_degrees.source_crs
        return float(source.axis_info[0].unit_conversion_factor) if source is not None else 1.0

    def _degrees(self, points_px: npt.NDArray[np.number]) -> Floats:
        """Mask pixels as longitude, without a jump on the mask, and latitude, in the unit of the CRS."""
        points = moved(self.to_map, points_px)
        if self.is_geographic:
            return points
        height, width = self.shape
        middle = moved(self.to_map, np.array([[width / 2, height / 2]]))
        lon, lat = self._to_degrees.transform(*np.concatenate([middle, points]).T)
        turn = 2 * math.pi / self._radians
        with np.errstate(invalid="ignore"):
            return np.column_stack([lon[1:] - turn * np.rint((lon[1:] - lon[0]) / turn * (1 - 1e-9)), lat[1:]])

    def _flat(self, points_px: npt.NDArray[np.number]) -> Floats:
        """Mask pixels as coordinates whose plane areas are those on the ellipsoid, in metres."""
        with np.errstate(invalid="ignore"):
            points = self._degrees(points_px) * self._radians
            half = self._semi_major_m**2 / 2
            return np.column_stack([points[:, 0] * self._semi_major_m, self._ordinate(points[:, 1]) * half])

    def _ordinate(self, latitude: Floats) -> Floats:
        """Snyder's q over the semi-major axis, so that it goes with longitude times that axis."""
        e, sine = self._eccentricity, np.sin(np.clip(latitude, -math.pi / 2, math.pi / 2))
        if e == 0:
            return 2 * sine / self._semi_major_m
        q = (1 - e * e) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
        return q / self._semi_major_m
