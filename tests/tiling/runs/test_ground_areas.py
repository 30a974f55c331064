"""Areas are those on the ground where the map's own plane doesn't show them, in every output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from case_files import case
from finished import finished_run, labels_of
from pyogrio.raw import read
from rasterio.transform import Affine

from flows.reporting.areas import Areas, known_areas
from tiling.export.export_run import export_run
from tiling.export.statistics import read_statistics
from tiling.runs.run import Run


def scene(path: Path, crs: str, transform: Affine, height: int = 200, width: int = 300) -> Path:
    made: dict[str, Any] = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **made, crs=crs, transform=transform) as file:
        file.write(np.zeros((1, height, width), np.uint8))
    return path


def exported(image: Path, out: Path) -> Run:
    run = finished_run(image, out)
    with run.open_source() as source:
        export_run(run, source, "statistics,geojson,geopackage,geoparquet")
    return run


def on_the_ellipsoid(image: Path, run: Run, label: int) -> float:
    """By pyproj, pixel by pixel of a few rows and columns, as trapezoids of geodesics: in square metres."""
    with rasterio.open(image) as file:
        crs, transform = pyproj.CRS.from_user_input(file.crs.to_wkt()), file.transform
    geod, way = crs.get_geod(), pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    assert geod is not None
    assert crs.geodetic_crs is not None
    unit = crs.geodetic_crs.axis_info[0].unit_conversion_factor
    labels = labels_of(run)
    total, step = 0.0, 25
    for y in range(0, labels.shape[0], step):
        for x in range(0, labels.shape[1], step):
            part = labels[y : y + step, x : x + step]
            tall, wide = part.shape
            line = np.linspace(0, 1, 51)
            sides = ((line, 0 * line), (0 * line + 1, line), (line[::-1], 0 * line + 1), (0 * line, line[::-1]))
            ring = np.concatenate([np.column_stack(side) for side in sides]) * (wide, tall) + (x, y)
            lon, lat = way.transform(*_moved(transform, ring))
            area, _ = geod.polygon_area_perimeter(np.multiply(lon, unit), np.multiply(lat, unit), radians=True)
            total += abs(area) / part.size * np.count_nonzero(part == label)
    return total


def _moved(transform: Affine, ring: Any) -> tuple[Any, Any]:
    x, y = ring.T
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f


def areas_of(features: Iterable[dict[str, Any]], label: int) -> float:
    return sum(each["properties"]["area_m2"] for each in features if each["properties"]["label"] == label)


MAPS = {
    "mercator": ("EPSG:3857", Affine(1, 0, 1_100_000, 0, -1, 8_400_000)),
    "world mercator": ("EPSG:3395", Affine(500, 200, -5_000_000, 100, -500, 7_000_000)),
    "degrees": ("EPSG:4326", Affine(0.01, 0, 17, 0, -0.01, 64)),
    "grads": ("EPSG:4807", Affine(0.002, 0, 1, 0, -0.002, 52)),
    "plate carree": ("EPSG:32662", Affine(1000, 0, 1_000_000, 0, -1000, 6_000_000)),
    "polar": ("EPSG:3031", Affine(5000, 0, 500_000, 0, -5000, 2_500_000)),
}


@pytest.mark.parametrize("name", MAPS)
def test_areas_are_those_on_the_ellipsoid_in_every_output(name: str, tmp_path: Path) -> None:
    image = scene(tmp_path / "map.tif", *MAPS[name])
    run = exported(image, tmp_path / "run")
    expected = on_the_ellipsoid(image, run, 1)
    rows = {row["class"]: row for row in read_statistics(run.exports / "statistics.parquet")}
    found = next(row for row in rows.values() if row["label"] == 1)
    assert found["area_km2"] * 1e6 == pytest.approx(expected, rel=2e-3)
    if name not in {"degrees", "grads"}:
        a, b, _, d, e, _ = tuple(MAPS[name][1])[:6]
        assert found["area_projected_km2"] * 1e6 == pytest.approx(found["pixels"] * abs(a * e - b * d))
    features = json.loads((run.exports / "objects.geojson").read_bytes())["features"]
    assert areas_of(features, 1) == pytest.approx(found["area_km2"] * 1e6)
    meta, _, _, columns = read(run.exports / "objects.gpkg", read_geometry=False)
    table = dict(zip(meta["fields"], columns, strict=True))
    assert table["area_m2"][table["label"] == 1].sum() == pytest.approx(found["area_km2"] * 1e6)
    state = run.ledger.fold()
    for areas in (Areas.of(run, state).rows, known_areas(run, state)):
        value, unit = areas[1].text.split()
        assert unit == "km²"
        assert float(value.replace(",", "")) == pytest.approx(expected * 1e-6, rel=3e-3, abs=1e-5)


def test_all_rows_are_the_whole_mask_on_the_ground(tmp_path: Path) -> None:
    image = tmp_path / "map.tif"
    image.write_bytes(case("j01_3857.tif").read_bytes())
    run = exported(image, tmp_path / "run")
    rows = read_statistics(run.exports / "statistics.parquet")
    assert sum(row["area_km2"] for row in rows) == pytest.approx(0.0075, rel=0.01)
    assert sum(row["area_projected_km2"] for row in rows) == pytest.approx(0.0300, rel=0.01)


def test_a_map_that_shows_areas_well_enough_keeps_those_of_its_plane(tmp_path: Path) -> None:
    run = exported(scene(tmp_path / "m.tif", "EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5e6)), tmp_path / "run")
    rows = read_statistics(run.exports / "statistics.parquet")
    assert rows[1]["area_km2"] == pytest.approx(rows[1]["pixels"] * 1e-4)
    assert "area_projected_km2" not in rows[1]
