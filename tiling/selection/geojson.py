"""GeoJSON (RFC 7946) as labelled polygons: QuPath's in pixels, or in the coordinates of the image's own CRS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.errors import CRSError

from tiling.errors import AnnotationError, ExportError
from tiling.georeference.crs import crs_of
from tiling.selection.polygons import Polygon, Polygons
from tiling.selection.reprojection import to_pixels
from tiling.sources.facts import Georeference

# Parsed, positions take about seven times their text.
MAX_FILE_BYTES = 512 * 1024**2
_QUPATH_CLASS = "classification"
_CRS84 = "EPSG:4326"
"""Longitude and latitude of WGS 84: GDAL takes this code's coordinates x before y, too."""


def read_geojson(
    path: Path,
    classes: Mapping[str, int] | None,
    coordinates: Literal["pixels", "crs", "degrees"] = "pixels",
    georeference: Georeference | None = None,
    class_property: str = _QUPATH_CLASS,
    bounds_px: tuple[int, int] = (0, 0),
) -> Polygons:
    """The polygons of a GeoJSON file in pixels of the image's level 0.

    `classes` gives each class name's label; with None every polygon is label 1. The name stands in the feature's
    property `class_property`: text, or an object with a `name`, as QuPath writes its `classification`.
    `coordinates`: "pixels" are x and y from the corner of the first pixel, as QuPath exports them, which is that of
    `bounds_px` (y before x) where a scanner names bounds; "crs" are those
    of the CRS that the file names, else of the image's own, brought to pixels through `georeference`; "degrees" are
    longitude and latitude (RFC 7946) where the file names no CRS. Edges are straight in the file's coordinates.

    Raises AnnotationError for a file that is not GeoJSON, a CRS from which nothing leads to the image, a feature of an
    unknown class, and a geometry that encloses no area; it names the feature by its place, counted from 0.
    """
    document = _load(path)
    unnamed = CRS.from_user_input(_CRS84) if coordinates == "degrees" else None
    place = _in_pixels(bounds_px) if coordinates == "pixels" else _from_map(path, document, georeference, unnamed)
    polygons: list[Polygon] = []
    for index, feature in enumerate(_features(path, document)):
        where = f"{path}: feature {index}"
        label = 1 if classes is None else _label(where, feature, classes, class_property)
        for part in _parts(where, feature):
            rings = [place(_ring(where, ring)) for ring in part]
            polygons.append(Polygon.from_rings(label, rings))
    if not polygons:
        raise AnnotationError(f"{path}: there is no polygon in it: nothing would be labelled; export the annotations")
    return Polygons(polygons)


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AnnotationError(f"{path}: larger than {MAX_FILE_BYTES} bytes; split it into files of fewer features")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise AnnotationError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: not GeoJSON ({error}); export the annotations again") from error


def _features(path: Path, document: Any) -> Iterator[Mapping[str, Any]]:
    """The features of a collection, of a bare list (QuPath's older exports) or of one feature."""
    if isinstance(document, dict):
        mapping = cast("dict[str, Any]", document)
        features: Any = mapping.get("features") if mapping.get("type") == "FeatureCollection" else [mapping]
    else:
        features = document
    if not isinstance(features, list):
        raise AnnotationError(f"{path}: not GeoJSON: it holds no list of features; export the annotations again")
    for index, feature in enumerate(cast("list[Any]", features)):
        if not isinstance(feature, dict) or cast("dict[str, Any]", feature).get("type") != "Feature":
            raise AnnotationError(f"{path}: item {index} is not a GeoJSON feature; export the annotations again")
        yield cast("dict[str, Any]", feature)


def _label(where: str, feature: Mapping[str, Any], classes: Mapping[str, int], class_property: str) -> int:
    properties = feature.get("properties")
    value: Any = cast("dict[str, Any]", properties).get(class_property) if isinstance(properties, dict) else None
    name = cast("dict[str, Any]", value).get("name") if isinstance(value, dict) else value
    known = ", ".join(classes)
    if name is None:
        raise AnnotationError(
            f"{where} has no class in its property {class_property!r}: it would have no label; "
            f"give it one of {known}, or name the property that holds the class"
        )
    if not isinstance(name, str) or name not in classes:
        raise AnnotationError(
            f"{where} is of class {name!r}, the card's are {known}: add the class to the card or correct the feature"
        )
    return classes[name]


def _parts(where: str, feature: Mapping[str, Any]) -> list[list[Any]]:
    """The polygons of a feature, each a list of rings: the outline, then its holes."""
    geometry = feature.get("geometry")
    geometry = cast("dict[str, Any]", geometry) if isinstance(geometry, dict) else {}
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise AnnotationError(
            f"{where} is a {kind or 'feature without geometry'}: only a Polygon or MultiPolygon has an area to label; "
            "remove it or draw its area"
        )
    parts: Any = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(parts, list) or not all(isinstance(part, list) and part for part in cast("list[Any]", parts)):
        raise AnnotationError(f"{where} has a broken {kind}: no list of rings; export it again")
    return cast("list[list[Any]]", parts)


def _ring(where: str, positions: Any) -> npt.NDArray[np.float64]:
    """A closed ring as `(n, 2)` of x and y (RFC 7946, section 3.1.6)."""
    try:
        ring = np.array([[float(position[0]), float(position[1])] for position in positions])
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise AnnotationError(
            f"{where} has a broken ring: its positions are not x, y pairs; export it again"
        ) from error
    if len(ring) < 4 or not np.isfinite(ring).all() or not np.array_equal(ring[0], ring[-1]):
        fault = "is not finite" if len(ring) and not np.isfinite(ring).all() else "does not close around an area"
        raise AnnotationError(
            f"{where} has a broken ring of {len(ring)} positions: it {fault}; a ring has four or more, "
            "the last the same as the first: draw it again"
        )
    return ring


def _in_pixels(bounds_px: tuple[int, int]) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    return lambda ring_xy: ring_xy[:, ::-1] + bounds_px


def _from_map(
    path: Path, document: Any, georeference: Georeference | None, unnamed: Any
) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """The way from map coordinates to pixels, y before x; AnnotationError where the image has none.

    `unnamed` is the CRS of a file that names none; None for the image's own.
    """
    if georeference is None or georeference.affine is None:
        raise AnnotationError(
            f"{path}: its image has no geotransform, so map coordinates lead nowhere; georeference the image, "
            'or give coordinates = "pixels"'
        )
    try:
        own = crs_of(georeference)
    except ExportError:
        own = None  # a name that means nothing to GDAL: coordinates are taken for the image's own
    return to_pixels(str(path), georeference, _named_crs(path, document) or unnamed, own)


def _named_crs(path: Path, document: Any) -> Any:
    """The CRS that a file names in the `crs` member of GeoJSON 2008, as QGIS and ogr2ogr write it; None without one.

    Its coordinates are x before y whatever order the CRS itself has them in, as all writers have it.
    """
    member: Any = cast("dict[str, Any]", document).get("crs") if isinstance(document, dict) else None
    if member is None:
        return None
    properties: Any = cast("dict[str, Any]", member).get("properties") if isinstance(member, dict) else None
    said = cast("dict[str, Any]", properties) if isinstance(properties, dict) else {}
    name = str(said.get("name") or (f"EPSG:{said['code']}" if "code" in said else ""))
    try:
        return CRS.from_user_input(_CRS84 if name.rstrip().endswith("CRS84") else name)
    except (CRSError, ValueError) as error:
        raise AnnotationError(
            f"{path}: its member crs is {json.dumps(member)[:80]}, which names no CRS that PROJ knows: nothing says "
            f"where its coordinates lie; reproject it to the image's CRS, or to longitude and latitude without crs"
        ) from error
