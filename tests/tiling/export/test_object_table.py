"""A row for each object: what scikit-image measures on the whole image, in files that their own readers open."""

from __future__ import annotations

import csv as plain_csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rasterio
import tifffile
from exported_runs import export, exported
from finished import blobs, finished_run, numbered
from numpy.typing import NDArray
from pyarrow import parquet
from rasterio.transform import Affine
from skimage.measure import regionprops

from tiling.errors import ExportError
from tiling.export import anndata_table, object_table, write_formats
from tiling.export.export_task import finished_of
from tiling.export.object_columns import unlike
from tiling.export.qupath_measurements import named
from tiling.export.readback import expect_readable
from tiling.export.subject import Subject
from tiling.geometry import Box
from tiling.georeference.placement import Placement
from tiling.objects.image import ObjectImage
from tiling.runs.run import Run

SHAPE = (300, 280)


def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (*SHAPE, 3), np.uint8)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a micrometre wide, twice as tall."""
    path = tmp_path_factory.mktemp("image") / "slide.tif"
    tifffile.imwrite(
        path, pixels(), resolution=(20_000, 10_000), resolutionunit="CENTIMETER", photometric="rgb", tile=(64, 64)
    )
    return path


@pytest.fixture(scope="module")
def run(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    made = finished_run(slide, folder, core=96, failed=[(1, 2)], probabilities=True)
    numbered(made)
    assert export(made, "table,geoparquet,qupath") == ["table", "geoparquet", "qupath"]
    return made


def labels_of(run: Run) -> NDArray[np.int32]:
    image = numbered_image(run)
    return image.read(Box(0, 0, *image.shape))


def numbered_image(run: Run) -> ObjectImage:
    return ObjectImage.open(run.objects_path, read_only=True)


def test_rows_are_what_scikit_image_finds_on_the_whole_image(run: Run) -> None:
    table = pd.read_parquet(exported(run, "objects-table.parquet"))
    labels = labels_of(run)
    regions = regionprops(labels, pixels())
    assert table["id"].tolist() == [region.label for region in regions] == [*range(1, len(table) + 1)]
    assert table["pixels"].tolist() == [region.area for region in regions]
    boxes = table[["box_y0", "box_x0", "box_y1", "box_x1"]].to_numpy()
    assert boxes.tolist() == [[*region.bbox] for region in regions]
    near: dict[str, Any] = {"rtol": 1e-12}
    np.testing.assert_allclose(table[["centroid_y", "centroid_x"]], [region.centroid for region in regions], **near)
    np.testing.assert_allclose(table["perimeter"], [region.perimeter for region in regions], **near)
    np.testing.assert_allclose(table["solidity"], [region.solidity for region in regions], **near)
    for place, band in enumerate(("red", "green", "blue")):
        np.testing.assert_allclose(table[f"{band}_mean"], [r.intensity_mean[place] for r in regions], **near)
        np.testing.assert_allclose(table[f"{band}_std"], [r.intensity_std[place] for r in regions], atol=1e-11)
        assert table[f"{band}_min"].tolist() == [region.intensity_min[place] for region in regions]
        assert table[f"{band}_max"].tolist() == [region.intensity_max[place] for region in regions]
    probabilities = run.open_probabilities(read_only=True)
    assert probabilities is not None
    kept = probabilities.read(Box(0, 0, *SHAPE)) / 255
    expected = [
        kept[label - 1][labels == number].mean() for number, label in zip(table["id"], table["label"], strict=True)
    ]
    np.testing.assert_allclose(table["mean_probability"], expected, **near)


def test_lengths_take_a_pixels_sides_as_they_are(run: Run) -> None:
    table = pd.read_parquet(exported(run, "objects-table.parquet"))
    regions = regionprops(labels_of(run), spacing=(1.0, 0.5))
    np.testing.assert_allclose(table["area_um2"], [region.area for region in regions], rtol=1e-12)
    for name in ("major", "minor"):
        lengths = np.array([getattr(region, f"axis_{name}_length") for region in regions])
        np.testing.assert_allclose(table[f"{name}_axis_um"] ** 2, lengths**2, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(table["eccentricity"] ** 2, [r.eccentricity**2 for r in regions], atol=1e-9)
    assert "perimeter_um" not in table  # a step along x is half as long as one along y
    np.testing.assert_allclose(table["centroid_y_um"], (table["centroid_y"] + 0.5) * 1.0, rtol=1e-12)
    np.testing.assert_allclose(table["centroid_x_um"], (table["centroid_x"] + 0.5) * 0.5, rtol=1e-12)
    np.testing.assert_allclose(table["centroid_x_image"], table["centroid_x"] + 0.5, rtol=1e-12)


def test_borders_and_failed_tiles_are_told(run: Run) -> None:
    table, labels = pd.read_parquet(exported(run, "objects-table.parquet")), labels_of(run)
    failed = np.asarray(run.open_mask(read_only=True).levels[0][:]) == 255
    near = np.zeros(SHAPE, np.bool_)
    near[1:] |= failed[:-1]
    near[:-1] |= failed[1:]
    near[:, 1:] |= failed[:, :-1]
    near[:, :-1] |= failed[:, 1:]
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert set(table.loc[table["touches_failed"], "id"]) == set(labels[near & (labels > 0)].tolist()) != set()
    assert set(table.loc[table["touches_border"], "id"]) == set(edge[edge > 0].tolist()) != set()


def test_csv_and_the_files_with_polygons_say_the_same(run: Run) -> None:
    table = parquet.read_table(exported(run, "objects-table.parquet"))
    with exported(run, "objects-table.csv").open(newline="") as file:
        rows = [*plain_csv.DictReader(file)]
    assert [*rows[0]] == table.schema.names
    assert [float(row["red_mean"]) for row in rows] == table.column("red_mean").to_pylist()
    assert [row["class"] for row in rows] == table.column("class").to_pylist()
    with_polygons = parquet.read_table(exported(run, "objects.parquet"))
    assert with_polygons.schema.names == [*table.schema.names, "geometry"]
    frame = with_polygons.drop(["geometry"]).to_pandas()
    lost = frame[frame["id"].isna()]
    assert lost["class"].tolist() == ["not predicted"]
    assert lost["pixels"].tolist() == [96 * (SHAPE[1] - 2 * 96)]
    own = frame[frame["id"].notna()].sort_values("id").reset_index(drop=True)
    pd.testing.assert_frame_equal(own.astype(table.to_pandas().dtypes.to_dict()), table.to_pandas())


def test_qupath_gets_measurements_by_name(run: Run) -> None:
    table = pd.read_parquet(exported(run, "objects-table.parquet")).set_index("id")
    features = json.loads(exported(run, "qupath.geojson").read_text())["features"]
    found = {
        each["properties"]["measurements"]["Object ID"]: each
        for each in features
        if "measurements" in each["properties"]
    }
    assert set(found) == set(table.index)
    for number, feature in found.items():
        measurements, row = feature["properties"]["measurements"], table.loc[number]
        begin = row["class"][0].upper() + row["class"][1:]
        for name, column in (("Area µm^2", "area_um2"), ("red: Mean", "red_mean"), ("red: Std.Dev.", "red_std")):
            assert measurements[f"{begin}: {name}"] == pytest.approx(row[column], rel=1e-7)
        assert all(isinstance(value, int | float) for value in measurements.values())
    assert [each["properties"]["objectType"] for each in features if "measurements" not in each["properties"]] == [
        "annotation"
    ]


def test_measurements_are_what_pythons_encoder_writes_of_the_table(run: Run) -> None:
    rows = {row["id"]: row for row in parquet.read_table(exported(run, "objects-table.parquet")).to_pylist()}
    columns, seen = named([*rows[1]]), set[int]()
    for line in exported(run, "qupath.geojson").read_text().splitlines():
        if '"Object ID"' not in line:
            continue
        number = json.loads(line.rstrip(","))["properties"]["measurements"]["Object ID"]
        begin = rows[number]["class"][0].upper() + rows[number]["class"][1:]
        known = {name: rows[number][column] for column, name in columns.items() if rows[number][column] is not None}
        of_float = {name: float(f"{value:.8g}") for name, value in known.items() if isinstance(value, float)}
        finite = {name: of_float.get(name, value) for name, value in known.items() if math.isfinite(value)}
        expected = {"Object ID": number, **{f"{begin}: {name}": value for name, value in finite.items()}}
        text = json.dumps(expected, separators=(",", ":"), ensure_ascii=False)
        assert line.rstrip(",").endswith(f',"measurements":{text}}}}}')
        seen.add(number)
    assert seen == rows.keys()


def test_no_tiling_changes_a_bit(slide: Path, run: Run, tmp_path: Path) -> None:
    mask = np.asarray(run.open_mask(read_only=True).levels[0][:])
    whole = np.where(mask == 255, 0, mask).astype(np.uint8)
    tables: set[bytes] = set()
    for core in (96, 160, 512):
        made = finished_run(slide, tmp_path / f"run{core}", whole, core=core)
        numbered(made)
        export(made, "table")
        tables.add(exported(made, "objects-table.csv").read_bytes())
    assert len(tables) == 1


def test_alone_it_takes_no_polygons_and_is_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [exported(run, f"objects-table.{kind}") for kind in ("csv", "parquet")]
    beside_others = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    monkeypatch.delattr(write_formats, "_shapes_of")
    assert export(run, "table") == ["table"]
    assert [file.read_bytes() for file in files] == beside_others


def test_a_table_of_which_one_line_has_another_number_of_cells_does_not_count(run: Run, tmp_path: Path) -> None:
    path, whole = tmp_path / "objects-table.csv", (Path(str(run.exports)) / "objects-table.csv").read_text()
    head, *lines = whole.splitlines(keepends=True)
    with run.open_source() as source:
        known = finished_of(run, run.ledger.fold(held=True), source, 1)
    finished = replace(known, measured=object_table.ObjectTable(tmp_path / "rows", pa.schema([]), len(lines)))
    path.write_text(whole)
    expect_readable(finished, [path], "table")
    for broken in ([*lines[:-1], f"1,{lines[-1]}"], lines[:-1], [*lines[:1], "\n", *lines[2:]]):
        path.write_text(head + "".join(broken))
        with pytest.raises(OSError, match="can't be read again"):
            expect_readable(finished, [path], "table")


def test_without_numbered_objects_there_is_no_table_and_other_formats_are_as_they_were(
    slide: Path, tmp_path: Path
) -> None:
    made = finished_run(slide, tmp_path / "run")
    with pytest.raises(ExportError, match="numbers none: segment with --objects"):
        export(made, "table")
    assert export(made, "geoparquet") == ["geoparquet"]
    assert parquet.read_schema(exported(made, "objects.parquet")).names == [
        *("label", "class", "pixels", "area_um2", "geometry")
    ]


def test_an_image_without_any_object_has_a_table_without_rows(slide: Path, tmp_path: Path) -> None:
    made = finished_run(slide, tmp_path / "run", np.zeros(SHAPE, np.uint8))
    numbered(made)
    assert export(made, "table,qupath,geoparquet") == ["table", "qupath", "geoparquet"]
    assert len(pd.read_parquet(exported(made, "objects-table.parquet"))) == 0


def test_on_a_map_in_degrees_areas_are_those_on_the_ellipsoid_and_no_length_is_told(tmp_path: Path) -> None:
    path = tmp_path / "degrees.tif"
    transform = Affine(1e-4, 0, 10.0, 0, -1e-4, 60.0)
    with rasterio.open(
        path, "w", driver="GTiff", height=200, width=160, count=1, dtype="uint16", crs="EPSG:4326", transform=transform
    ) as file:
        file.write(np.random.default_rng(1).integers(0, 60_000, (1, 200, 160)).astype(np.uint16))
    made = finished_run(path, tmp_path / "run", blobs((200, 160)))
    numbered(made)
    export(made, "table,geopackage")
    table = pd.read_parquet(exported(made, "objects-table.parquet"))
    # A pixel at 60 degrees north is 11.1 m tall and half as wide.
    assert np.all(np.abs(table["area_m2"] / table["pixels"] - 62.1) < 1)
    assert not [name for name in table if name.endswith("_m")]
    expected = transform.c + transform.a * (table["centroid_x"] + 0.5)
    np.testing.assert_allclose(table["centroid_x_map"], expected, rtol=1e-12)


def test_bands_of_like_names_stay_apart() -> None:
    assert unlike(["Red", "red", "", "Red 2"]) == ("Red", "red 2", "band 3", "Red 2 2")


def test_qupath_names_pixels_where_no_length_is_known() -> None:
    columns = ["pixels", "perimeter", "major_axis", "red_mean", "red_min", "red_max", "red_std", "solidity"]
    assert named(columns) == {
        "pixels": "Area px^2",
        "perimeter": "Length px",
        "major_axis": "Major axis px",
        "solidity": "Solidity",
        **{f"red_{kind}": f"red: {name}" for kind, name in (("mean", "Mean"), ("min", "Min"), ("max", "Max"))},
        "red_std": "red: Std.Dev.",
    }


def test_an_h5ad_opens_in_anndata(run: Run) -> None:
    anndata = pytest.importorskip("anndata")
    assert export(run, "anndata") == ["anndata"]
    table, data = (
        pd.read_parquet(exported(run, "objects-table.parquet")),
        anndata.read_h5ad(exported(run, "objects.h5ad")),
    )
    assert data.obs_names.astype(int).tolist() == table["id"].tolist()
    assert data.obs["class"].tolist() == table["class"].tolist()
    np.testing.assert_array_equal(data[:, "red_mean"].X[:, 0], table["red_mean"])
    np.testing.assert_array_equal(data.obsm["spatial"], table[["centroid_x_image", "centroid_y_image"]])


def test_an_anndata_that_lacks_a_library_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anndata.py").write_text("import nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "anndata"]:
        monkeypatch.delitem(sys.modules, name)
    exported(run, "objects.h5ad").unlink(missing_ok=True)  # another test's, where the library is installed
    with pytest.raises(ExportError, match=r"can't be loaded \(No module named 'nowhere'\): pip install 'overtile"):
        export(run, "anndata")


def test_without_anndata_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anndata_table, "find_spec", lambda name: None)
    subject = Subject("slide.tif", Placement((1.0, 0.0, 0.0, 0.0, 1.0, 0.0)), SHAPE, probabilities=False)
    with pytest.raises(ExportError, match=r"pip install 'overtile\[anndata\]', or export --format table"):
        anndata_table.expect_anndata(subject)


def test_rows_are_found_by_number_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_table, "ROWS", 50)
    schema = pa.schema([("id", pa.int32()), ("value", pa.float64())])
    order = np.random.default_rng(0).permutation(1000) + 1
    table = object_table.ObjectTable(tmp_path / "rows", schema, 1000)
    parts = (order[first : first + 37] for first in range(0, 1000, 37))
    table.extend(pa.record_batch([pa.array(ids, pa.int32()), pa.array(ids * 2.0)], schema=schema) for ids in parts)
    for wanted in ([5, 0, 7], [0], [], [1000, 1, 500], order[100:140].tolist(), order[:600].tolist()):
        found = table.take(np.array(wanted, np.int64)).to_pydict()
        assert found["id"] == [number or None for number in wanted]
        assert found["value"] == [number * 2.0 or None for number in wanted]
    assert [number for part in table.batches() for number in part.column("id").to_pylist()] == [*range(1, 1001)]
    with pytest.raises(ValueError, match="0 objects were measured, and there are 3, 3 without a row"):
        object_table.ObjectTable(tmp_path / "none", schema, 3).extend([])
