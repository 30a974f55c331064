"""GeoJSON (RFC 7946) as labelled polygons: QuPath's in pixels, or in the coordinates of the image's own CRS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from tiling.errors import AnnotationError
from tiling.polygons import Polygon, Polygons
from tiling.sources.facts import Georeference

# Parsed, positions take about seven times their text.
MAX_FILE_BYTES = 512 * 1024**2
_QUPATH_CLASS = "classification"
_WORLD = {"4326", "84"}


def read_geojson(
    path: Path,
    classes: Mapping[str, int] | None,
    coordinates: Literal["pixels", "crs", "degrees"] = "pixels",
    georeference: Georeference | None = None,
    class_property: str = _QUPATH_CLASS,
) -> Polygons:
    """The polygons of a GeoJSON file in pixels of the image's level 0.

    `classes` gives each class name's label; with None every polygon is label 1. The name stands in the feature's
    property `class_property`: text, or an object with a `name`, as QuPath writes its `classification`.
    `coordinates`: "pixels" are x and y from the corner of the first pixel, as QuPath exports them; "crs" are those
    of the image's own CRS, brought to pixels through `georeference`; "degrees" are given back as they are, latitude as
    y and longitude as x.

    Raises AnnotationError for a file that is not GeoJSON, another CRS than the image's, a feature of an unknown
    class, and a geometry that encloses no area; it names the feature by its place, counted from 0.
    """
    document = _load(path)
    place = _from_map(path, document, georeference) if coordinates == "crs" else _in_pixels
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


def _in_pixels(ring_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return ring_xy[:, ::-1]


def _from_map(
    path: Path, document: Any, georeference: Georeference | None
) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """The way from map coordinates to pixels, y before x; AnnotationError where the image has none."""
    if georeference is None or georeference.affine is None:
        raise AnnotationError(
            f"{path}: its image has no geotransform, so map coordinates lead nowhere; georeference the image, "
            'or give coordinates = "pixels"'
        )
    _check_crs(path, document, georeference.crs)
    a, b, c, d, e, f = georeference.affine
    if a * e == b * d:
        raise AnnotationError(f"{path}: its image's geotransform can't be inverted; georeference the image again")
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))

    def place(ring_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return ((ring_xy - (c, f)) @ inverse.T)[:, ::-1]

    return place


def _check_crs(path: Path, document: Any, image_crs: str | None) -> None:
    """Refuse a file that names another CRS (the `crs` member of GeoJSON 2008) than the image's EPSG code."""
    member: Any = cast("dict[str, Any]", document).get("crs") if isinstance(document, dict) else None
    properties: Any = cast("dict[str, Any]", member).get("properties") if isinstance(member, dict) else None
    name = str(cast("dict[str, Any]", properties).get("name", "")) if isinstance(properties, dict) else ""
    theirs = re.search(r"(?:EPSG|CRS)\D*(?:\d+\.\d+)?:*(\d+)$", name)
    ours = re.fullmatch(r"EPSG:(\d+)", image_crs or "")
    if theirs is None or ours is None or theirs[1] == ours[1] or {theirs[1], ours[1]} <= _WORLD:
        return
    raise AnnotationError(
        f"{path}: its coordinates are of {name}, the image's of {image_crs}: they would land elsewhere; "
        f"reproject it to {image_crs}"
    )
