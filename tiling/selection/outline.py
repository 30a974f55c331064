"""Polygons outside of which nothing is labelled: tiles are skipped, and pixels of the others are background."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import shapely

from tiling.errors import AnnotationError, RunError
from tiling.geometry import Box
from tiling.selection.polygons import Polygon, Polygons
from tiling.sources.facts import Georeference
from tiling.storage.place import ABSENT, Place, read_at, write_atomic

OUTSIDE = 0
"""What pixels outside hold: background, as in tiles that are skipped."""

_Pixel = TypeVar("_Pixel", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """The polygons of a GeoJSON file on an image: in pixels of its level 0, or of a mask (`on`)."""

    polygons: Polygons
    digest: str
    edges: shapely.STRtree

    @classmethod
    def read(
        cls, path: Path, georeference: Georeference | None, image: Box, bounds_px: tuple[int, int] = (0, 0)
    ) -> Outline:
        """Read polygons in pixels of level 0, or of a georeferenced image in map coordinates.

        Pixels are counted from `bounds_px` where a scanner names bounds, as QuPath counts them.
        Map coordinates are of the CRS that the file names. Without one they are of the image's own CRS, or longitude
        and latitude (RFC 7946) where they don't lie on the image as the former.

        Raises:
            AnnotationError: no polygons, or none that meets the image.
        """
        on_map = georeference is not None and georeference.affine is not None
        polygons = _on_map(path, georeference, image) if on_map else _read(path, bounds_px=bounds_px)
        if not polygons.touches(image):
            raise AnnotationError(
                f"none of the {len(polygons)} polygons in {path} lies on the image of {image.height} x {image.width} "
                f"px: nothing would be segmented; give polygons in {'its map coordinates' if on_map else 'its pixels'}"
            )
        return cls.of(polygons)

    @classmethod
    def of(cls, polygons: Polygons) -> Outline:
        digest = hashlib.sha256(b"by pixels" + polygons.edges.tobytes()).hexdigest()
        lines: Any = shapely.linestrings(polygons.edges[:, [1, 0, 3, 2]].reshape(-1, 2, 2))
        return cls(polygons, digest, shapely.STRtree(lines))

    def keep(self, path: Place) -> None:
        """Write it where it isn't yet: the file that it came from may change or go before the last tile is computed."""
        edges = [polygon.edges.tolist() for polygon in self.polygons]
        data = (json.dumps({"edges_yxyx": edges}) + "\n").encode()
        if not (path.is_file() and path.read_bytes() == data):
            write_atomic(path, data)

    @classmethod
    def load(cls, path: Place, digest: str) -> Outline:
        """Read what `keep` has written.

        Raises:
            RunError: it isn't there, or is not what the digest is of.
        """
        try:
            edges = json.loads(read_at(path))["edges_yxyx"]
            kept = cls.of(Polygons([Polygon(1, np.array(each, np.float64).reshape(-1, 4)) for each in edges]))
        except (*ABSENT, ValueError, RecursionError, KeyError, TypeError) as error:
            raise RunError(_lost(path, f"{type(error).__name__}: {error}")) from error
        if kept.digest != digest:
            raise RunError(_lost(path, "its digest is another than the card's"))
        return kept

    def on(self, corner_px: tuple[float, float], pixel_px: tuple[float, float]) -> Outline:
        """The same in pixels of those sides, counted from that corner, both in this one's pixels, y before x."""
        corner, sides = np.array([*corner_px, *corner_px]), np.array([*pixel_px, *pixel_px])
        return Outline.of(Polygons([Polygon(each.label, (each.edges - corner) / sides) for each in self.polygons]))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """`y0, x0, y1, x1` around all polygons."""
        y0, x0, y1, x1 = self.polygons.bounds.T
        return float(y0.min()), float(x0.min()), float(y1.max()), float(x1.max())

    def meets(self, y0: float, x0: float, y1: float, x1: float) -> bool:
        """True if a rectangle shares anything with a polygon: an edge, or all of itself."""
        if len(self.edges.query(shapely.box(x0, y0, x1, y1), predicate="intersects")):
            return True
        # Without an edge in it, it is inside or outside as a whole.
        pixel = Box(math.floor(y0), math.floor(x0), math.floor(y0) + 1, math.floor(x0) + 1)
        return bool(self.polygons.labels(pixel)[0, 0])

    def cut(self, pixels: npt.NDArray[_Pixel], box: Box) -> npt.NDArray[_Pixel]:
        """`(…, y, x)` of a box with background wherever a pixel's centre is outside."""
        inside_HW = self.inside(box)
        return pixels if inside_HW.all() else np.where(inside_HW, pixels, pixels.dtype.type(OUTSIDE))

    def inside(self, box: Box) -> npt.NDArray[np.bool_]:
        """Mask of the pixels `(y, x)` of a box whose centre lies inside."""
        return self.polygons.labels(box).astype(np.bool_)

    def outside(self, box: Box) -> int:
        """Number of pixels of a box whose centre lies outside."""
        if len(self.edges.query(shapely.box(box.x0, box.y0, box.x1, box.y1), predicate="intersects")):
            return box.area - int(np.count_nonzero(self.polygons.labels(box)))
        return 0 if self.meets(box.y0, box.x0, box.y1, box.x1) else box.area


def _lost(path: Place, why: str) -> str:
    return (
        f"{path} doesn't hold the polygons of the run's region ({why}): its tiles can't be cut to them; run the "
        f"overtile segment command of the run again with the same --region, which writes it anew"
    )


def _read(
    path: Path,
    coordinates: Literal["pixels", "crs", "degrees"] = "pixels",
    georeference: Georeference | None = None,
    bounds_px: tuple[int, int] = (0, 0),
) -> Polygons:
    """All polygons of a file; raises AnnotationError."""
    from tiling.selection.geojson import read_geojson  # with GDAL, which few runs need

    return read_geojson(path, None, coordinates, georeference, bounds_px=bounds_px)


def _on_map(path: Path, georeference: Georeference | None, image: Box) -> Polygons:
    """In the CRS that the file names; without one in the image's CRS, else as longitude and latitude."""
    try:
        polygons = _read(path, "crs", georeference)
    except AnnotationError:
        degrees = _from_degrees(path, georeference)
        if degrees is None:
            raise
        return degrees
    return polygons if polygons.touches(image) else _from_degrees(path, georeference) or polygons


def _from_degrees(path: Path, georeference: Georeference | None) -> Polygons | None:
    """The polygons as longitude and latitude on the image; None where they can't be, or its CRS is not known."""
    if georeference is None or (georeference.wkt is None and not georeference.crs):
        return None
    try:
        return _read(path, "degrees", georeference)
    except AnnotationError:
        return None
