"""Regions in any CRS lie where their own coordinates say, along the whole of each edge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from case_files import case
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio import features
from rasterio.transform import Affine

from tiling.errors import AnnotationError
from tiling.geometry import Box
from tiling.selection.outline import Outline
from tiling.selection.region import Region
from tiling.source import open_source


def on_map(image: Path, region: Path) -> tuple[float, float, float, float]:
    """West, south, east and north of a region in the image's CRS."""
    with open_source(image) as source:
        y0, x0, y1, x1 = Region.parse(str(region), source).bounds
        assert source.georeference is not None
        assert source.georeference.affine is not None
        a, _, c, _, e, f = source.georeference.affine
    return x0 * a + c, y1 * e + f, x1 * a + c, y0 * e + f


def test_a_region_that_names_nad27_is_not_taken_for_wgs84() -> None:
    west, _, east, _ = on_map(case("g06_utm13.tif"), case("g06_nad27.geojson"))
    assert (west, east) == (pytest.approx(500150, abs=0.01), pytest.approx(500250, abs=0.01))
    west, _, east, _ = on_map(case("g06_utm13.tif"), case("g06_wgs84.geojson"))
    assert (west, east) == (pytest.approx(500150, abs=0.01), pytest.approx(500250, abs=0.01))


def burnt(ring: list[list[float]], crs: str, image: Path) -> NDArray[np.uint8]:
    """The region's pixels by pyproj and GDAL, its edges straight in its own CRS in steps of a five thousandth."""
    line = shapely.LinearRing(ring)
    dense = shapely.segmentize(line, line.length / 5000)
    with rasterio.open(image) as theirs:
        way = Transformer.from_crs(crs, theirs.crs, always_xy=True)
        x, y = way.transform(*shapely.get_coordinates(dense).T)
        shape = {"type": "Polygon", "coordinates": [np.column_stack([x, y]).tolist()]}
        return np.asarray(features.rasterize([shape], theirs.shape, transform=theirs.transform, dtype="uint8"))


def differing(region: Path, crs: str, image: Path) -> int:
    ring = json.loads(region.read_text())["features"][0]["geometry"]["coordinates"][0]
    with open_source(image) as source:
        outline = Outline.read(region, source.georeference, source.levels[0].box)
        ours = outline.polygons.labels(source.levels[0].box)
    theirs = burnt(ring, crs, image)
    assert theirs.any()
    return int(np.count_nonzero((ours > 0) != (theirs > 0)))


def test_edges_are_straight_in_degrees() -> None:
    image, region = case("g08_s2.tif"), case("g08_box.geojson")
    ring = json.loads(region.read_text())["features"][0]["geometry"]["coordinates"][0]
    line = shapely.LinearRing(ring)
    dense = shapely.get_coordinates(shapely.segmentize(line, line.length / 5000))
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True).transform(*dense.T)
    with open_source(image) as source:
        outline = Outline.read(region, source.georeference, source.levels[0].box)
        assert source.georeference is not None
        assert source.georeference.affine is not None
        a, _, c, _, e, f = source.georeference.affine
    there = shapely.Polygon(np.column_stack([(x - c) / a, (y - f) / e]))
    straight = there.exterior.coords
    shapely.prepare(there)
    wrong = 0
    for at in range(0, len(straight), 61):  # squares of 64 px along all edges, which corners alone miss by up to 42 px
        col, row = (max(0, int(value) - 32) for value in straight[at])
        rows, cols = np.mgrid[row : row + 64, col : col + 64]
        inside = shapely.contains_xy(there, cols + 0.5, rows + 0.5)
        wrong += int(np.count_nonzero((outline.polygons.labels(Box(row, col, row + 64, col + 64)) > 0) != inside))
    assert wrong < 20  # of 80 squares, each with an edge of 64 px: pixels through whose centre an edge passes


def scene(path: Path, crs: str, transform: Affine, side: int = 2000) -> Path:
    made: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **made, crs=crs, transform=transform, compress="deflate") as file:
        file.write(np.ones((1, side, side), np.uint8))
    return path


def drawn(path: Path, ring: Sequence[Sequence[float]], crs: object) -> Path:
    polygon = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], "crs": crs}))
    return path


@pytest.mark.parametrize(
    ("member", "crs"),
    [
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3035"}}, "EPSG:3035"),
        ({"type": "name", "properties": {"name": "EPSG:3857"}}, "EPSG:3857"),
        ({"type": "EPSG", "properties": {"code": 4314}}, "EPSG:4314"),  # DHDN, 90 m from WGS 84 there
        ({"type": "name", "properties": {"name": "http://www.opengis.net/def/crs/OGC/1.3/CRS84"}}, "EPSG:4326"),
        (None, "EPSG:4326"),
    ],
)
def test_the_crs_that_a_file_names_is_the_one_of_its_coordinates(member: object, crs: str, tmp_path: Path) -> None:
    image = scene(tmp_path / "s.tif", "EPSG:32633", Affine(100, 0, 400_000, 0, -100, 6_000_000))
    corners = np.array([[450_000, 5_850_000], [560_000, 5_830_000], [580_000, 5_960_000], [430_000, 5_970_000.0]])
    x, y = Transformer.from_crs("EPSG:32633", crs, always_xy=True).transform(*corners.T)
    ring = np.column_stack([x, y]).tolist()
    region = drawn(tmp_path / "r.geojson", [*ring, ring[0]], member)
    assert differing(region, crs, image) < 5000 * 0.05


def test_a_file_that_names_what_is_no_crs_is_refused(tmp_path: Path) -> None:
    image = scene(tmp_path / "s.tif", "EPSG:32633", Affine(100, 0, 400_000, 0, -100, 6_000_000), side=20)
    ring = [[400_100.0, 5_999_000], [400_900, 5_999_000], [400_900, 5_999_900], [400_100, 5_999_000]]
    for member in ({"type": "name", "properties": {"name": "Blatt 7"}}, {"type": "link"}, "EPSG:4326"):
        with open_source(image) as source, pytest.raises(AnnotationError, match="names no CRS that PROJ knows"):
            Region.parse(str(drawn(tmp_path / "r.geojson", ring, member)), source)
