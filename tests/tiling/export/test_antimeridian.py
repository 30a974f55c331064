"""GeoJSON of scenes on the 180th meridian: cut there (RFC 7946, section 3.1.9), and still every pixel of the mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from finished import CLASSES, finished_run, labels_of
from numpy.typing import NDArray
from rasterio import features
from rasterio.warp import transform

from benchmarks.exported import compare
from flows.config.export import ExportConfig
from flows.run.exports import export_here
from tiling.errors import ExportError
from tiling.runs.run import Run

SHAPE = (90, 120)
SCENES = {
    "UTM across the meridian": ("EPSG:32601", (1000.0, 166_021.4 - 60_300, 500_000.0)),
    "degrees past 180": ("EPSG:4326", (0.05, 177.02, 10.0)),
    "degrees from 0 to 360": ("EPSG:4326", (3.0, 0.0, 89.0)),
    "degrees of another datum": ("EPSG:4267", (0.05, -183.0, 60.0)),
    "beside the north pole": ("EPSG:3413", (1000.0, -1_000_000.0, 1_000_000.0)),
}


def scene(path: Path, crs: str, place: tuple[float, float, float], shape: tuple[int, int] = SHAPE) -> Path:
    """A file without pixels: side of one, and x and y of the first one's corner."""
    side, x, y = place
    profile: dict[str, Any] = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=crs, transform=rasterio.Affine(side, 0, x, 0, -side, y)) as file:
        file.write(np.zeros((1, *shape), np.uint8))
    return path


def exported(image: Path, out: Path, labels: NDArray[np.uint8] | None = None) -> tuple[Run, list[Any]]:
    run = finished_run(image, out, labels, core=64)
    export_here(ExportConfig(run=run.path, formats="geojson"))
    return run, json.loads((out / "exports" / "objects.geojson").read_bytes())["features"]


def parts_of(geometry: dict[str, Any]) -> list[Any]:
    found = shapely.geometry.shape(geometry)
    assert found.geom_type == geometry["type"]
    return list(shapely.get_parts(found))


@pytest.mark.parametrize("name", SCENES)
def test_objects_are_cut_at_the_meridian_and_give_the_mask_back(name: str, tmp_path: Path) -> None:
    crs, place = SCENES[name]
    image = scene(tmp_path / "scene.tif", crs, place)
    run, found = exported(image, tmp_path / "run")
    labels = {item[0]: label for label, item in enumerate(CLASSES)}
    kinds = [feature["geometry"]["type"] for feature in found]
    assert 0 < kinds.count("MultiPolygon") < kinds.count("Polygon")
    pairs: list[tuple[Any, int]] = []
    for feature in found:
        parts = parts_of(feature["geometry"])
        assert len(parts) == 1 or feature["geometry"]["type"] == "MultiPolygon"
        bounds = shapely.bounds(parts)
        assert (bounds[:, 0] >= -180).all()
        assert (bounds[:, 2] <= 180).all()
        assert (bounds[:, 2] - bounds[:, 0] < 180).all(), "no part reaches round the earth"
        assert shapely.is_valid(parts).all()
        assert all(ring.is_ccw for ring in shapely.get_exterior_ring(parts))
        assert not any(hole.is_ccw for part in parts for hole in part.interiors)
        pairs += [(part, labels[feature["properties"]["class"]]) for part in parts]
    np.testing.assert_array_equal(rasterised(pairs, image, place[1]), labels_of(run))


def rasterised(pairs: list[tuple[Any, int]], image: Path, west: float) -> NDArray[np.uint8]:
    """The parts where the image has them: in degrees, on the turn of the earth that its own numbers are on."""
    with rasterio.open(image) as file:
        crs, affine, shape = file.crs, file.transform, file.shape

    def back(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = np.column_stack(transform("EPSG:4326", crs, points[:, 0], points[:, 1]))
        if crs.is_geographic and (moved[:, 0] < west - 1e-3).any():
            moved[:, 0] += 360
        if crs.is_geographic and (moved[:, 0] > west + shape[1] * affine.a + 1e-3).any():
            moved[:, 0] -= 360
        return moved

    return features.rasterize(
        [(shapely.transform(part, back), label) for part, label in pairs], shape, transform=affine, dtype="uint8"
    )


@pytest.mark.parametrize(
    ("crs", "place"),
    [("EPSG:4326", (3.0, -180.0, 90.0)), ("EPSG:3857", (333_958.472379821, -20_037_508.342789244, 1e7))],
)
def test_a_map_of_the_whole_earth_is_not_cut(crs: str, place: tuple[float, float, float], tmp_path: Path) -> None:
    labels = np.zeros((60, 120), np.uint8)
    labels[20:30] = 1
    _, (feature,) = exported(scene(tmp_path / "world.tif", crs, place, (60, 120)), tmp_path / "run", labels)
    (part,) = parts_of(feature["geometry"])
    assert part.bounds[::2] == pytest.approx((-180, 180), abs=1e-6)


def test_a_scene_around_a_pole_is_refused(tmp_path: Path) -> None:
    image = scene(tmp_path / "pole.tif", "EPSG:3413", (1000.0, -60_000.0, 45_000.0))
    run = finished_run(image, tmp_path / "run", core=64)
    with pytest.raises(ExportError, match=r"lies around a pole, .* use geopackage"):
        export_here(ExportConfig(run=run.path, formats="geojson"))


def test_what_lies_on_another_planet_is_refused_in_degrees_of_the_earth(tmp_path: Path) -> None:
    mars = (
        'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447223612]],'
        'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]]'
    )
    run = finished_run(scene(tmp_path / "mars.tif", mars, (0.05, 10.0, 10.0)), tmp_path / "run", core=64)
    with pytest.raises(ExportError, match=r"nothing leads there from the CRS of .*mars.tif, .* use geopackage"):
        export_here(ExportConfig(run=run.path, formats="geojson"))
    export_here(ExportConfig(run=run.path, formats="auto"))
    with rasterio.open(tmp_path / "mars.tif") as image, rasterio.open(tmp_path / "run/exports/mask.tif") as cog:
        assert cog.crs == image.crs
    assert compare(run, "geopackage")["differing"] == 0
