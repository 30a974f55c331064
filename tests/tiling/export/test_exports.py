"""Every export says the pixels of the mask, to the readers that others use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import rasterio
import shapely
import tifffile
from exported_runs import NAMES, export, exported
from finished import CLASSES, blobs, finished_run, labels_of
from numpy.typing import NDArray
from ome_types import from_tiff
from PIL import Image
from pyarrow import csv, parquet
from rasterio import features
from rio_cogeo import cog_validate
from skimage.measure import label as connected

from tiling.runs.pyramid import level_shapes
from tiling.runs.run import Run
from tiling.selection.geojson import read_geojson


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


def test_the_thumbnail_is_the_image_at_the_overlays_size(on_slide: Run, slide: Path) -> None:
    export(on_slide, "thumbnail")
    found = np.asarray(Image.open(exported(on_slide, "thumbnail.png"))).astype(float)
    pixels = tifffile.imread(slide, key=0)
    factor = -(-pixels.shape[0] // 1600)
    assert found.shape == (-(-pixels.shape[0] // factor), -(-pixels.shape[1] // factor), 3)
    assert np.abs(found[3, 5] - pixels[3 * factor :, 5 * factor :][:factor, :factor].mean(axis=(0, 1))).max() <= 0.5


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
