"""Every export says the pixels of the mask, where the source says that they lie, to the readers that others use."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import tifffile
from finished import CLASSES, blobs, finished_run, labels_of, write_labels
from numpy.typing import NDArray
from ome_types import from_tiff
from PIL import Image
from pyarrow import csv, parquet
from rasterio import features
from rasterio.warp import transform, transform_bounds
from rio_cogeo import cog_validate
from skimage.measure import label as connected

from benchmarks.exported import VECTORS, compare
from flows.errors import ConfigError
from flows.export_config import ExportConfig
from flows.exporting import export_here
from flows.segment import export as export_stage
from flows.segment import stitch
from tiling.errors import ExportError
from tiling.export.columns import schema_of
from tiling.export.exporting import export_run
from tiling.export.finished import Finished
from tiling.export.formats import FORMATS
from tiling.export.geojson import write_geojson
from tiling.export.rows import bands_of_labels
from tiling.geojson import read_geojson
from tiling.geometry import OutputGrid, PixelSize
from tiling.ledger import TileRecord, TileState
from tiling.placement import placement_of
from tiling.pyramid import level_shapes
from tiling.run import Run
from tiling.shapes import polygonize
from tiling.stitching import majority
from tiling.storage import place_of

NAMES = {item[0]: label for label, item in enumerate(CLASSES)} | {"not predicted": 255}


def export(run: Run, formats: str) -> list[str]:
    with run.open_source() as source:
        return [each.name for each in export_run(run, source, formats)]


def exported(run: Run, name: str) -> Path:
    path = run.exports / name
    assert isinstance(path, Path)
    return path


def times(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def slide(data_dir: Path) -> Path:
    return data_dir / "slides" / "CMU-1-Small-Region.svs"


@pytest.fixture(scope="module")
def on_slide(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over the real slide with a failed tile and a skipped one, exported as suits it."""
    folder = tmp_path_factory.mktemp("slide")
    run = finished_run(slide, folder / "run", core=512, failed=[(1, 2)], skipped=[(4, 0)], probabilities=True)
    assert export(run, "auto") == ["statistics", "ome-tiff", "qupath", "probabilities-ome-tiff"]
    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of half a micrometre per pixel, on which the ways of a run are tried."""
    path = tmp_path_factory.mktemp("image") / "small.tif"
    pixels = np.zeros((300, 280, 3), np.uint8)
    tifffile.imwrite(path, pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", photometric="rgb")
    return path


@pytest.fixture(scope="module")
def scene(data_dir: Path) -> Path:
    return data_dir / "geo" / "solaris" / "sample_geotiff.tif"


@pytest.fixture(scope="module")
def on_map(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("map")
    run = finished_run(scene, folder / "run", core=256, failed=[(0, 1)], probabilities=True)
    assert export(run, "auto,geojson,geoparquet") == [
        *("statistics", "cog", "geopackage", "qgis", "probabilities-cog", "geojson", "geoparquet")
    ]
    return run


def test_the_ome_tiff_holds_every_level_in_tiles(on_slide: Run) -> None:
    path = exported(on_slide, "mask.ome.tif")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        (series,) = tiff.series
        assert [level.shape for level in series.levels] == level_shapes(on_slide.plan.mask.shape)
        for index, level in enumerate(series.levels):
            page = level.keyframe
            assert page.is_tiled
            assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            np.testing.assert_array_equal(level.asarray(), labels_of(on_slide, index))
        assert len(series.keyframe.subifds or ()) == len(series.levels) - 1
    with on_slide.open_source() as source:
        size = source.levels[0].pixel_size
    assert size is not None
    image = from_tiff(path).images[0]
    assert (image.pixels.physical_size_x, image.pixels.physical_size_y) == (size.x, size.y)
    assert image.pixels.physical_size_x_unit.value == "µm"
    described = from_tiff(path).structured_annotations
    assert described is not None
    (annotation,) = described.map_annotations
    assert {m.k: m.value for m in annotation.value.ms} == {str(label): name for name, label in NAMES.items()}


def test_probabilities_are_exported_beside_the_labels(on_slide: Run, on_map: Run) -> None:
    for run, name in ((on_slide, "probabilities.ome.tif"), (on_map, "probabilities.tif")):
        probabilities = run.open_probabilities(read_only=True)
        assert probabilities is not None
        whole = np.asarray(probabilities.pyramid.levels[0][:])
        if name.endswith(".ome.tif"):
            found = tifffile.imread(exported(run, name))
            assert [c.name for c in from_tiff(exported(run, name)).images[0].pixels.channels] == [
                name for name, _ in CLASSES[1:]
            ]
        else:
            with rasterio.open(exported(run, name)) as dataset:
                found = dataset.read()
                assert list(dataset.descriptions) == [name for name, _ in CLASSES[1:]]
            assert cog_validate(exported(run, name), strict=True)[0]
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("classes", [1, 2])
def test_probabilities_of_any_number_of_classes_become_a_cog(classes: int, scene: Path, tmp_path: Path) -> None:
    run = finished_run(scene, tmp_path / "run", core=256)
    card = run.card.model_copy(update={"probabilities": run.card.model.classes[1 : 1 + classes]})
    (tmp_path / "run" / "run.json").write_text(card.model_dump_json())
    run = Run.open(tmp_path / "run")
    run.create_probabilities()
    kept = run.open_probabilities()
    assert kept is not None
    for tile in run.plan.tiles():
        kept.write(tile, np.full((classes, *tile.valid.shape), 10 + tile.index, np.uint8))
    kept.build_pyramid()
    assert export(run, "probabilities-cog") == ["probabilities-cog"]
    path = exported(run, "probabilities.tif")
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), np.asarray(kept.pyramid.levels[0][:]))
        assert list(dataset.descriptions) == [name for name, _ in CLASSES[1 : 1 + classes]]


def test_statistics_have_one_schema_with_objects_and_without(small: Path, tmp_path: Path) -> None:
    full, empty = (finished_run(small, tmp_path / name, labels) for name, labels in some_and_none((300, 280)).items())
    schemas = [schema_of_statistics(run) for run in (full, empty)]
    assert schemas[0] == schemas[1]
    assert "null" not in {str(kind) for kind in schemas[1].types}
    rows = parquet.read_table(exported(empty, "statistics.parquet")).to_pylist()
    assert [(row["objects"], row["mean_object_pixels"]) for row in rows] == [
        (None, None),
        *[(0, None)] * 2,
        *[(None, None)] * 2,
    ]


def some_and_none(shape: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
    return {"full": blobs(shape), "empty": np.zeros(shape, np.uint8)}


def schema_of_statistics(run: Run) -> Any:
    export(run, "statistics")
    return parquet.read_schema(exported(run, "statistics.parquet"))


def test_statistics_equal_what_is_counted_on_the_mask(on_slide: Run) -> None:
    labels = labels_of(on_slide)
    skipped = np.zeros(labels.shape, bool)
    skipped[on_slide.plan.at(4, 0).valid.slices] = True
    computed = labels.size - skipped.sum() - (labels == 255).sum()
    rows = cast("list[dict[str, Any]]", parquet.read_table(exported(on_slide, "statistics.parquet")).to_pylist())
    assert [row["class"] for row in rows] == [*(name for name, _ in CLASSES), "skipped as empty", "not predicted"]
    with on_slide.open_source() as source:
        size = source.levels[0].pixel_size
    assert size is not None
    for row in rows:
        if row["class"] == "skipped as empty":
            expected = int(skipped.sum())
        else:
            expected = int(((labels == row["label"]) & ~skipped).sum())
        assert row["pixels"] == expected
        assert row["area_mm2"] == pytest.approx(expected * size.x * size.y / 1e6)
        if row["class"] in {name for name, _ in CLASSES}:
            assert row["share_of_computed"] == pytest.approx(expected / computed)
        if row["label"] in (1, 2):
            objects = np.asarray(connected(labels == row["label"], connectivity=1)).max()
            assert row["objects"] == objects
            assert row["mean_object_pixels"] == pytest.approx(expected / objects)
            assert row["mean_object_um2"] == pytest.approx(expected / objects * size.x * size.y)
        else:
            assert row["objects"] is None
    assert sum(row["pixels"] for row in rows) == labels.size
    table = csv.read_csv(exported(on_slide, "statistics.csv"))
    assert table.column("pixels").to_pylist() == [row["pixels"] for row in rows]
    assert table.column_names == [*rows[0]]


def test_qupath_objects_are_the_mask(on_slide: Run) -> None:
    path = exported(on_slide, "qupath.geojson")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection"
    kinds = {f["properties"]["classification"]["name"]: f["properties"]["objectType"] for f in document["features"]}
    assert kinds == {"nucleus": "detection", "gland & <duct>": "detection", "not predicted": "annotation"}
    first = document["features"][0]["properties"]["classification"]
    assert first["color"] == [int(dict(CLASSES)[first["name"]][i : i + 2], 16) for i in (1, 3, 5)]
    labels = labels_of(on_slide)
    pairs = [(f["geometry"], NAMES[f["properties"]["classification"]["name"]]) for f in document["features"]]
    np.testing.assert_array_equal(features.rasterize(pairs, labels.shape, dtype="uint8"), labels)


def test_qupath_objects_come_back_as_annotations(small: Path, tmp_path: Path) -> None:
    run = finished_run(small, tmp_path / "run", failed=[(0, 0)])
    export(run, "qupath")
    polygons = read_geojson(exported(run, "qupath.geojson"), NAMES)
    np.testing.assert_array_equal(polygons.labels(run.plan.mask), labels_of(run))


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
        finished = Finished(run, run.ledger.fold(), shown, "0" * 32)
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


def test_the_thumbnail_is_the_image_at_the_overlays_size(on_slide: Run, slide: Path) -> None:
    export(on_slide, "thumbnail")
    found = np.asarray(Image.open(exported(on_slide, "thumbnail.png"))).astype(float)
    pixels = tifffile.imread(slide, key=0)
    factor = -(-pixels.shape[0] // 1600)
    assert found.shape == (-(-pixels.shape[0] // factor), -(-pixels.shape[1] // factor), 3)
    assert np.abs(found[3, 5] - pixels[3 * factor :, 5 * factor :][:factor, :factor].mean(axis=(0, 1))).max() <= 0.5


def test_what_a_format_cannot_say_is_refused_before_anything_is_written(small: Path, tmp_path: Path) -> None:
    run = finished_run(small, tmp_path / "run")
    hints = {"cog": "ome-tiff", "geojson": "qupath", "geopackage": "qupath", "probabilities-cog": "--probabilities"}
    for name, hint in hints.items():
        with pytest.raises(ExportError, match=hint):
            export(run, f"statistics,{name}")
    assert not exported(run, "statistics.csv").exists()
    told = "^--format: 'shapefile' is no format; give none, auto, or names of statistics, ome-tiff"
    with pytest.raises(ConfigError, match=told) as refused:
        ExportConfig(run=run.path, formats="shapefile")
    assert "\n" not in str(refused.value)


def test_geoparquet_of_a_slide_is_in_its_pixels(on_slide: Run) -> None:
    export(on_slide, "geoparquet")
    table = parquet.read_table(exported(on_slide, "objects.parquet"))
    geo = json.loads(cast("dict[bytes, bytes]", table.schema.metadata)[b"geo"])
    assert geo["columns"]["geometry"]["crs"] is None
    assert "area_um2" in table.column_names
    geometries = shapely.from_wkb(table.column("geometry").to_pylist())
    pairs = list(zip(geometries, table.column("label").to_pylist(), strict=True))
    labels = labels_of(on_slide)
    np.testing.assert_array_equal(features.rasterize(pairs, labels.shape, dtype="uint8"), labels)


def test_only_what_no_longer_shows_the_mask_is_written_again(small: Path, tmp_path: Path) -> None:
    labels = blobs((300, 280), 3)
    run = finished_run(small, tmp_path / "run", labels)
    assert export(run, "qupath,statistics") == ["qupath", "statistics"]
    before = times(tmp_path / "run" / "exports")
    assert export(run, "auto") == ["ome-tiff"]
    write_labels(run, labels)
    assert export(run, "none") == [], "tiles were computed again, and are what they were"
    after = times(tmp_path / "run" / "exports")
    assert before.items() <= after.items()
    labels[5:9, 5:9] = 2
    write_labels(run, labels)
    assert export(run, "none") == ["statistics", "ome-tiff", "qupath"]
    np.testing.assert_array_equal(tifffile.imread(exported(run, "mask.ome.tif")), labels)
    exported(run, "statistics.csv").unlink()
    assert export(run, "none") == ["statistics"]


def test_after_a_rerun_no_export_is_stale_and_no_other_shard_is_touched(scene: Path, tmp_path: Path) -> None:
    labels = np.kron(blobs((90, 90), 5), np.ones((10, 10), np.uint8))
    run = finished_run(scene, tmp_path / "run", labels, core=256, failed=[(0, 1)])
    names = ["statistics", "ome-tiff", "cog", *VECTORS]
    assert export(run, ",".join(names)) == names
    before = times(tmp_path / "run" / "mask.ome.zarr")
    tile = run.plan.at(0, 1)
    digest = run.open_mask().write(tile, np.ascontiguousarray(labels[tile.valid.slices]))
    run.ledger.append(TileRecord(tile.index, TileState.DONE, 2, digest))
    run.ledger.flush()
    stitch.fn(run)
    export_stage.fn(run)  # as a rerun calls it: no format is asked for
    after = times(tmp_path / "run" / "mask.ome.zarr")
    assert {file for file in after if before.get(file) != after[file]} == {"0/c/0/1", "1/c/0/0"}
    np.testing.assert_array_equal(labels_of(run), labels)
    np.testing.assert_array_equal(tifffile.imread(exported(run, "mask.ome.tif")), labels)
    with rasterio.open(exported(run, "mask.tif")) as cog:
        np.testing.assert_array_equal(cog.read(1), labels)
    for name in VECTORS:
        assert compare(run, name)["differing"] == 0, name
    rows = csv.read_csv(exported(run, "statistics.csv"))
    assert rows.column("pixels").to_pylist()[-1] == 0, "nothing is left unpredicted"


def test_an_unfinished_run_is_not_exported(small: Path, tmp_path: Path) -> None:
    run = finished_run(small, tmp_path / "run")
    for segment in sorted((tmp_path / "run" / "ledger").glob("*.jsonl"))[-1:]:
        segment.unlink()
    with pytest.raises(ExportError, match="not finished"):
        export(run, "statistics")


def test_the_command_writes_what_the_list_says(small: Path, tmp_path: Path) -> None:
    run = finished_run(small, tmp_path / "run")
    written = export_here(ExportConfig(run=place_of(str(run.path)), formats="statistics,qupath"))
    assert [place.name for place in written] == [*FORMATS["statistics"].files, *FORMATS["qupath"].files]
    assert [place.name for place in export_here(ExportConfig(run=run.path))] == ["mask.ome.tif"]
    assert export_here(ExportConfig(run=run.path)) == []
