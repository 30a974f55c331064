"""Polygons become labels: by pixel centres, with holes, the same in every box; broken ones are refused by name."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tiling.errors import AnnotationError
from tiling.geometry import Box
from tiling.selection.geojson import read_geojson
from tiling.selection.polygons import Polygon, Polygons
from tiling.source import open_source
from tiling.sources.facts import Georeference

SQUARE = [[2, 2], [8, 2], [8, 8], [2, 8], [2, 2]]
HOLE = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]


def write(path: Path, geometry: Any, properties: Any = None, **members: Any) -> Path:
    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **members}))
    return path


def a_polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def centres_inside(rings: list[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The even-odd rule, pixel by pixel: how many edges cross the ray from the centre to the left."""
    inside = np.zeros(shape, bool)
    for row, col in np.ndindex(shape):
        y, x, crossings = row + 0.5, col + 0.5, 0
        for ring in rings:
            for (y0, x0), (y1, x1) in pairwise(ring):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    crossings += 1
        inside[row, col] = crossings % 2
    return inside


@pytest.mark.parametrize("seed", range(6))
def test_polygons_hold_the_pixels_whose_centre_is_inside(seed: int) -> None:
    random = np.random.default_rng(seed)
    rings = [random.uniform(-6, 30, (random.integers(3, 12), 2)) for _ in range(random.integers(1, 4))]
    if seed % 2:  # vertices and edges that fall on pixel centres
        rings = [ring.round() + 0.5 for ring in rings]
    closed = [np.vstack([ring, ring[:1]]) for ring in rings]
    polygons = Polygons([Polygon.from_rings(1, closed)])
    whole = polygons.labels(Box(0, 0, 24, 28))
    np.testing.assert_array_equal(whole, centres_inside(closed, (24, 28)))
    for y0, x0, y1, x1 in ((0, 0, 5, 28), (3, 7, 20, 9), (20, 20, 24, 28)):
        np.testing.assert_array_equal(polygons.labels(Box(y0, x0, y1, x1)), whole[y0:y1, x0:x1])


def test_qupath_export_becomes_labels_with_holes_and_levels(tmp_path: Path) -> None:
    tumor = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}
    path = write(tmp_path / "a.geojson", a_polygon(SQUARE, HOLE), tumor)
    labels = read_geojson(path, {"background": 0, "Stroma": 1, "Tumor": 2}).labels(Box(0, 0, 10, 12))
    expected = np.zeros((10, 12), np.uint8)
    expected[2:8, 2:8] = 2
    expected[4:6, 4:6] = 0
    np.testing.assert_array_equal(labels, expected)
    halved = read_geojson(path, None).labels(Box(0, 0, 5, 6), (2.0, 2.0))
    np.testing.assert_array_equal(halved, expected[::2, ::2] > 0)


def test_older_exports_are_a_bare_list_and_parts_may_be_many(tmp_path: Path) -> None:
    parts = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [HOLE]]}
    features = [
        {"type": "Feature", "geometry": parts, "properties": {"kind": "a"}},
        {"type": "Feature", "geometry": a_polygon([[0, 0], [3, 0], [3, 3], [0, 0]]), "properties": {"kind": "b"}},
    ]
    (tmp_path / "list.json").write_text(json.dumps(features))
    labels = read_geojson(tmp_path / "list.json", {"a": 1, "b": 2}, class_property="kind").labels(Box(0, 0, 8, 8))
    assert (labels[4:6, 4:6] == 1).all()
    assert labels[2, 2] == 2  # the last one counts


def test_map_coordinates_follow_the_images_geotransform(tmp_path: Path) -> None:
    where = Georeference("EPSG:32616", (0.5, 0.0, 700.0, 0.0, -0.5, 900.0))
    ring = [[700 + x / 2, 900 - y / 2] for x, y in SQUARE]
    path = write(tmp_path / "m.geojson", a_polygon(ring), crs={"properties": {"name": "urn:ogc:def:crs:EPSG::32616"}})
    labels = read_geojson(path, None, "crs", where).labels(Box(0, 0, 10, 10))
    assert labels.sum() == 36
    assert labels[2:8, 2:8].all()
    turned = read_geojson(path, None, "crs", Georeference(None, (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)))
    assert turned.labels(Box(701, 896, 704, 899)).all()
    assert turned.labels(Box(690, 890, 720, 910)).sum() == 9
    assert turned.touches(Box(700, 890, 710, 900))
    assert not turned.touches(Box(890, 700, 900, 710))


def test_real_buildings_lie_where_another_program_drew_them(data_dir: Path) -> None:
    folder = data_dir / "geo" / "solaris"
    with open_source(folder / "sample_geotiff.tif") as source:
        polygons = read_geojson(folder / "geotiff_labels.geojson", None, "crs", source.georeference)
        drawn = polygons.labels(source.levels[0].box) > 0
    with Image.open(folder / "DERIVED_sample_geotiff_buildings_from_geotiff_labels.png") as image:
        others = np.array(image) > 0
    assert len(polygons) == 43
    # That program also counts pixels that an outline merely touches.
    assert (drawn & others).sum() / (drawn | others).sum() > 0.94


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (None, "feature 0 is a feature without geometry"),
        ({"type": "LineString", "coordinates": SQUARE}, "feature 0 is a LineString: only a Polygon"),
        (a_polygon(SQUARE[:-1]), "broken ring of 4 positions: it does not close around an area"),
        (a_polygon([[0, 0], [1, 1], [0, 0]]), "broken ring of 3 positions"),
        (a_polygon([]), "broken ring of 0 positions"),
        (a_polygon([[0, 0], [float("nan"), 2], [4, 4], [0, 0]]), "it is not finite"),
        (a_polygon([[0, 0], ["a", 2], [4, 4], [0, 0]]), "positions are not x, y pairs"),
        (a_polygon([1, 2, 3, 1]), "positions are not x, y pairs"),
        ({"type": "Polygon", "coordinates": 7}, "broken Polygon: no list of rings"),
        ({"type": "MultiPolygon", "coordinates": [[]]}, "broken MultiPolygon"),
    ],
)
def test_broken_geometry_is_refused_by_name(tmp_path: Path, geometry: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_geojson(write(tmp_path / "x.geojson", geometry), None)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"classification": {"name": "Tumour"}}, "feature 0 is of class 'Tumour', the card's are background, Tumor"),
        ({"classification": {}}, "feature 0 has no class in its property 'classification'.*one of background, Tumor"),
        ({"classification": 3}, "of class 3"),
        (None, "feature 0 has no class"),
    ],
)
def test_unknown_class_is_refused(tmp_path: Path, properties: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_geojson(write(tmp_path / "x.geojson", a_polygon(SQUARE), properties), {"background": 0, "Tumor": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not GeoJSON"),
        ("\xff", "not GeoJSON"),
        ("[" * 100_000, "not GeoJSON"),
        ("3", "holds no list of features"),
        ('{"type": "FeatureCollection", "features": {}}', "holds no list of features"),
        ('{"type": "FeatureCollection", "features": [{"type": "Polygon"}]}', "item 0 is not a GeoJSON feature"),
        ('{"type": "FeatureCollection", "features": []}', "there is no polygon in it"),
    ],
)
def test_file_that_is_not_geojson_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.geojson").write_bytes(text.encode("latin-1"))
    with pytest.raises(AnnotationError, match=message):
        read_geojson(tmp_path / "x.geojson", None)


def test_coordinates_that_would_land_elsewhere_are_refused(tmp_path: Path) -> None:
    crs84 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    path = write(tmp_path / "x.geojson", a_polygon(SQUARE), crs=crs84)
    with pytest.raises(AnnotationError, match="no geotransform"):
        read_geojson(path, None, "crs", None)
    unknown = write(tmp_path / "u.geojson", a_polygon(SQUARE), crs={"properties": {"name": "EPSG:99999"}})
    with pytest.raises(AnnotationError, match=r"EPSG:99999.*names no CRS that PROJ knows.*reproject it"):
        read_geojson(unknown, None, "crs", Georeference("EPSG:32616", (1.0, 0, 0, 0, -1.0, 0)))
    with pytest.raises(AnnotationError, match="can't be inverted"):
        read_geojson(path, None, "crs", Georeference("EPSG:4326", (1.0, 1.0, 0, 1.0, 1.0, 0)))
    assert len(read_geojson(path, None, "crs", Georeference("EPSG:4326", (1.0, 0, 0, 0, -1.0, 0)))) == 1
    with pytest.raises(AnnotationError, match=r"missing.geojson: No such file"):
        read_geojson(tmp_path / "missing.geojson", None)
