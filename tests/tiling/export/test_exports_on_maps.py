"""Exports lie where the source says that its pixels do, on the earth or in the plane."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from xml.sax.saxutils import escape

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.shutil
import shapely
from exported_runs import NAMES, export, exported
from finished import CLASSES, finished_run, labels_of
from numpy.typing import NDArray
from pyarrow import parquet
from rasterio import features
from rasterio.warp import transform, transform_bounds
from rio_cogeo import cog_validate

from tiling.errors import ExportError
from tiling.export.columns import schema_of
from tiling.export.finished import Finished
from tiling.export.geojson import write_geojson
from tiling.export.rows import bands_of_labels
from tiling.geometry import OutputGrid, PixelSize
from tiling.runs.mask import majority
from tiling.runs.placement import placement_of
from tiling.runs.pyramid import level_shapes
from tiling.runs.run import Run
from tiling.shapes import polygonize


def test_a_cog_lies_exactly_on_its_source(on_map: Run, scene: Path) -> None:
    path = exported(on_map, "mask.tif")
    is_valid, errors, warnings = cog_validate(path, strict=True)
    assert (is_valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as cog, rasterio.open(scene) as source:
        assert cog.transform == source.transform
        assert cog.crs == source.crs
        assert (cog.shape, cog.nodata) == (source.shape, 255)
        np.testing.assert_array_equal(cog.read(1), labels_of(on_map))
        colors = cog.colormap(1)
        for label, (_, color) in enumerate(CLASSES):
            assert colors[label][:3] == tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
        assert cog.tags()["CLASS_2"] == "gland & <duct>"
        assert cog.overviews(1) == [2**level for level in range(1, len(level_shapes(cog.shape)))]
        half = cog.read(1, out_shape=tuple(-(-side // 2) for side in cog.shape))
    np.testing.assert_array_equal(half, majority(labels_of(on_map)))


NZTM = rasterio.CRS.from_epsg(2193).to_wkt()


@pytest.mark.parametrize(
    ("defined", "is_held"),
    [
        (NZTM.replace("298.257222101", "298.257222101004"), True),  # as LINZ writes it: the same to a nanometre
        (NZTM.replace('"latitude_of_origin",0', '"latitude_of_origin",0.0000000001'), True),
        (NZTM.replace('"false_easting",1600000', '"false_easting",1600500'), False),
        (NZTM.replace("298.257222101", "294.9786982"), False),
        (NZTM.replace('"scale_factor",0.9996', '"scale_factor",1'), False),
    ],
)
def test_a_crs_with_a_code_whose_definition_differs_is_held_or_refused(
    tmp_path: Path, defined: str, is_held: bool
) -> None:
    """GDAL writes the code alone, and reads what the code stands for."""
    tif, image = tmp_path / "image.tif", tmp_path / "image.vrt"
    where = rasterio.Affine(0.5, 0, 1748800, 0, -0.5, 5963040)
    profile: dict[str, Any] = {"driver": "GTiff", "width": 96, "height": 64, "count": 3, "dtype": "uint8"}
    with rasterio.open(tif, "w", **profile, transform=where, crs=rasterio.CRS.from_epsg(2193)) as dataset:
        dataset.write(np.full((3, 64, 96), 200, np.uint8))
    rasterio.shutil.copy(tif, image, driver="VRT")
    text = re.sub("(<SRS[^>]*>).*(</SRS>)", lambda found: found[1] + escape(defined) + found[2], image.read_text())
    image.write_text(text)
    run = finished_run(image, tmp_path / "run", core=64)
    if not is_held:
        with pytest.raises(ExportError, match="can't hold its CRS"):
            export(run, "cog")
        return
    assert export(run, "cog") == ["cog"]
    with rasterio.open(exported(run, "mask.tif")) as written:
        assert (written.crs.to_epsg(), written.transform) == (2193, where)


def burnt(geometries: NDArray[Any], values: list[int], path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        pairs = list(zip(geometries, values, strict=True))
        return features.rasterize(pairs, dataset.shape, transform=dataset.transform, dtype="uint8")


def test_a_geopackage_gives_the_mask_back_on_its_source(on_map: Run, scene: Path) -> None:
    path = exported(on_map, "objects.gpkg")
    meta, table = pyogrio.read_arrow(path)
    with rasterio.open(scene) as source:
        assert rasterio.CRS.from_user_input(meta["crs"]) == source.crs
    geometries = shapely.from_wkb(table.column(meta["geometry_name"] or "geometry").to_pylist())
    assert shapely.is_valid(geometries).all()
    np.testing.assert_array_equal(burnt(geometries, table.column("label").to_pylist(), scene), labels_of(on_map))
    assert set(table.column("class").to_pylist()) == {"nucleus", "gland & <duct>", "not predicted"}
    inside = pyogrio.read_arrow(path, bbox=tuple(shapely.total_bounds(geometries[:1])))[1]
    assert 0 < inside.num_rows < table.num_rows, "the spatial index answers"


def test_geoparquet_says_what_the_geopackage_says(on_map: Run, scene: Path) -> None:
    path = exported(on_map, "objects.parquet")
    table = parquet.read_table(path)
    geo = json.loads(cast("dict[bytes, bytes]", table.schema.metadata)[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    with rasterio.open(scene) as source:
        assert rasterio.CRS.from_user_input(json.dumps(column["crs"])) == source.crs
    geometries = shapely.from_wkb(table.column("geometry").to_pylist())
    np.testing.assert_allclose(column["bbox"], shapely.total_bounds(geometries), rtol=0, atol=0)
    assert shapely.is_ccw(shapely.get_exterior_ring(geometries)).all()
    np.testing.assert_array_equal(burnt(geometries, table.column("label").to_pylist(), scene), labels_of(on_map))


def test_geojson_is_in_degrees_and_right_handed(on_map: Run, scene: Path) -> None:
    document = json.loads(exported(on_map, "objects.geojson").read_text(encoding="utf-8"))
    assert set(document) == {"type", "features"}, "RFC 7946 has no member for a CRS"
    geometries = np.array([shapely.geometry.shape(f["geometry"]) for f in document["features"]])
    values = [f["properties"]["label"] for f in document["features"]]
    assert shapely.is_ccw(shapely.get_exterior_ring(geometries)).all()
    low_x, low_y, high_x, high_y = shapely.total_bounds(geometries)
    with rasterio.open(scene) as source:
        bounds = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
        assert bounds[0] - 1e-4 < low_x < high_x < bounds[2] + 1e-4
        assert bounds[1] - 1e-4 < low_y < high_y < bounds[3] + 1e-4
        crs = source.crs
    back = shapely.transform(
        geometries,
        lambda points: np.column_stack(transform("EPSG:4326", crs, points[:, 0], points[:, 1])),
    )
    np.testing.assert_array_equal(burnt(back, values, scene), labels_of(on_map))


def test_long_edges_are_straight_in_longitude_and_latitude(data_dir: Path, tmp_path: Path) -> None:
    """A pixel of 300 m: the edge of a whole image is a curve there, far from the line between its ends."""
    image = data_dir / "geo" / "rasterio" / "RGB.byte.tif"
    with rasterio.open(image) as source:
        shape, crs, affine = source.shape, source.crs, source.transform
    labels = np.ones(shape, np.uint8)
    labels[300:400, 200:600] = 2
    run = finished_run(image, tmp_path / "run", labels)
    export(run, "geojson")
    document = json.loads(exported(run, "objects.geojson").read_text())
    strayed: list[float] = []
    for feature in document["features"]:
        for ring in feature["geometry"]["coordinates"]:
            ends = np.array(ring)
            middles = (ends[:-1] + ends[1:]) / 2
            x, y = (np.array(values) for values in transform("EPSG:4326", crs, *middles.T))
            cols, rows = ~affine * (x, y)
            strayed += np.minimum(np.abs(cols - np.rint(cols)), np.abs(rows - np.rint(rows))).tolist()
    assert len(strayed) > 50
    assert max(strayed) < 0.02


def test_areas_have_the_unit_of_the_pixel_size_in_every_format(scene: Path, tmp_path: Path) -> None:
    """A map whose pixels were said to measure so and so many µm (`--image-mpp`)."""
    run = finished_run(scene, tmp_path / "run", core=256)
    with run.open_source() as source:
        shown = replace(placement_of(run, source), pixel_size=PixelSize(3.0, 2.0, "um"))
        finished = Finished(run, run.ledger.fold(), shown, "0" * 32, source)
    assert shown.pixel_area == pytest.approx(6.0)
    found = replace(finished, shapes=list(polygonize(bands_of_labels(finished.mask.pyramid))))
    write_geojson(found, [tmp_path / "objects.geojson"])
    features = json.loads((tmp_path / "objects.geojson").read_text())["features"]
    assert features
    for each in (feature["properties"] for feature in features):
        assert each["area_um2"] == pytest.approx(6.0 * each["pixels"])
        assert "area_m2" not in each
    assert "area_um2" in schema_of(found).names


def test_a_rotated_source_keeps_its_rotation(data_dir: Path, tmp_path: Path) -> None:
    image = data_dir / "geo" / "rasterio" / "rotated.tif"
    run = finished_run(image, tmp_path / "run", core=64)
    export(run, "cog,geopackage")
    with rasterio.open(image) as source, rasterio.open(exported(run, "mask.tif")) as cog:
        assert source.transform.b != 0
        assert cog.transform == source.transform
        assert cog.crs == source.crs
    meta, table = pyogrio.read_arrow(exported(run, "objects.gpkg"))
    geometries = shapely.from_wkb(table.column(meta["geometry_name"] or "geometry").to_pylist())
    np.testing.assert_array_equal(burnt(geometries, table.column("label").to_pylist(), image), labels_of(run))


def test_ground_control_points_follow_the_mask(data_dir: Path, tmp_path: Path) -> None:
    image = data_dir / "geo" / "rio-tiler" / "cog_gcps.tif"
    run = finished_run(image, tmp_path / "run", core=256, grid=OutputGrid((Fraction(1, 2), Fraction(1, 2))))
    export(run, "cog")
    with rasterio.open(image) as source, rasterio.open(exported(run, "mask.tif")) as cog:
        theirs, crs = source.gcps
        ours, found = cog.gcps
        assert found == crs
        assert [(p.row * 2, p.col * 2, p.x, p.y) for p in ours] == [(p.row, p.col, p.x, p.y) for p in theirs]
    with pytest.raises(ExportError, match="only ground control points"):
        export(run, "geopackage")


@pytest.mark.parametrize("scale", [Fraction(2), Fraction(1, 4)])
def test_a_finer_or_coarser_mask_lies_on_its_source(scale: Fraction, scene: Path, tmp_path: Path) -> None:
    run = finished_run(scene, tmp_path / "run", core=256, grid=OutputGrid((scale, scale)))
    export(run, "cog,qupath")
    with rasterio.open(scene) as source, rasterio.open(exported(run, "mask.tif")) as cog:
        assert cog.transform == source.transform * source.transform.scale(float(1 / scale))
        np.testing.assert_array_equal(cog.read(1), labels_of(run))
        polygons = json.loads(exported(run, "qupath.geojson").read_text())["features"]
        pairs = [(f["geometry"], NAMES[f["properties"]["classification"]["name"]]) for f in polygons]
        onto = rasterio.Affine.scale(float(1 / scale))
        np.testing.assert_array_equal(
            features.rasterize(pairs, cog.shape, transform=onto, dtype="uint8"), labels_of(run)
        )


def test_a_coarser_level_is_placed_on_level_0(data_dir: Path, tmp_path: Path) -> None:
    image = data_dir / "slides" / "small_HE_levels.tiff"
    run = finished_run(image, tmp_path / "run", core=64, level=1)
    with run.open_source() as source:
        placement = placement_of(run, source)
        whole, seen = source.levels[0], source.levels[1]
    height, width = run.plan.mask.shape
    a, _, c, _, e, f = placement.to_image
    assert (c, f) == (0, 0)
    assert (a * width, e * height) == pytest.approx((whole.width, whole.height))
    assert placement.pixel_size == seen.pixel_size
