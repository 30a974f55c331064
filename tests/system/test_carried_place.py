"""An image's place in its own coordinates is carried into every output."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from case_files import case
from finished import finished_run
from tiny import save_tiny

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.worker.tuning import tune
from tiling.export.export_run import export_run
from tiling.export.xarray_dataset import dataset_of
from tiling.geometry import Box
from tiling.runs.run import Run
from tiling.selection.geojson import read_geojson
from tiling.selection.region import Region
from tiling.source import open_source


def write_zarr(path: Path, levels: list[tuple[tuple[int, int], Any]], whole: Any = None, unit: str = "um") -> Path:
    """An OME-Zarr 0.4 of those levels' shapes and transformations."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    datasets: list[dict[str, Any]] = []
    for index, (shape, transformations) in enumerate(levels):
        values = np.random.default_rng(index).integers(0, 255, (3, *shape), np.uint8)
        group.create_array(str(index), data=values, chunks=(1, 64, 64))
        datasets.append({"path": str(index), "coordinateTransformations": transformations})
    named = {"um": "micrometer", "nm": "nanometer", "": None}[unit]
    space = {"type": "space"} if named is None else {"type": "space", "unit": named}
    image: dict[str, Any] = {
        "version": "0.4",
        "axes": [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}],
        "datasets": datasets,
    }
    if whole is not None:
        image["coordinateTransformations"] = whole
    group.attrs["multiscales"] = [image]
    return path


def at(scale: list[float], translation: list[float] | None = None) -> list[dict[str, Any]]:
    moved = [] if translation is None else [{"type": "translation", "translation": [0, *translation]}]
    return [{"type": "scale", "scale": [1, *scale]}, *moved]


def planned(image: Path, folder: Path, **asked: Any) -> Run:
    model = save_tiny(folder / "model")
    config = SegmentConfig(image=image, model=str(model), out=folder / "run", core=64, foreground="none", **asked)
    return prepare(config, 1, partial(tune, device="cpu"))


def first_transformations(run: Run) -> tuple[list[float], list[float]]:
    """Scale and translation of the mask's finest level."""
    assert isinstance(run.mask_path, Path)
    ome = json.loads((run.mask_path / "zarr.json").read_text())["attributes"]["ome"]
    scale, translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    return scale["scale"], translation["translation"]


def test_the_case_of_a_translated_zarr(tmp_path: Path) -> None:
    run = planned(case("c01b_translated.ome.zarr"), tmp_path, as_is=True)
    assert first_transformations(run) == ([0.5, 0.5], [1000, 2000])


def test_a_region_begins_where_it_lies_in_the_images_own_coordinates(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", [((200, 300), at([0.5, 0.25], [10.0, -30.0]))])
    run = planned(path, tmp_path, as_is=True, region="20,40,180,290")
    assert first_transformations(run) == ([0.5, 0.25], [10 + 20 * 0.5, -30 + 40 * 0.25])


def test_a_level_lies_where_it_says_itself_with_its_own_scale(tmp_path: Path) -> None:
    levels = [((201, 301), at([0.5, 0.5], [10, 20])), ((100, 150), at([1.0, 1.0], [10.25, 20.25]))]
    run = planned(write_zarr(tmp_path / "a.zarr", levels), tmp_path, level=1)
    assert first_transformations(run) == ([1.0, 1.0], [10.25, 20.25])


def test_the_images_transformations_follow_its_levels(tmp_path: Path) -> None:
    whole = at([1000, 1000], [500, 0])
    path = write_zarr(tmp_path / "a.zarr", [((100, 120), at([0.5, 0.5], [3, 4]))], whole, unit="nm")
    run = planned(path, tmp_path, as_is=True)
    assert first_transformations(run) == ([0.5, 0.5], [pytest.approx(3.5), pytest.approx(4)])


def test_without_a_unit_the_translation_is_in_pixels(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", [((100, 120), at([2, 2], [30, 40]))], unit="")
    assert first_transformations(planned(path, tmp_path, as_is=True)) == ([1, 1], [15, 20])


def test_ome_tiff_and_datasets_begin_where_the_image_does(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", [((200, 300), at([0.5, 0.25], [10.0, -30.0]))])
    run = finished_run(path, tmp_path / "run")
    image = run.card.image.model_copy(update={"origin_px": (20.0, -120.0)})
    run = Run(run.path, run.card.model_copy(update={"image": image}))
    with run.open_source() as source:
        assert source.origin_px(0) == (20.0, -120.0)
        export_run(run, source, "ome-tiff")
    with tifffile.TiffFile(str(run.exports / "mask.ome.tif")) as tif:
        assert tif.ome_metadata is not None
        assert 'PositionX="-30.0"' in tif.ome_metadata
        assert 'PositionY="10.0"' in tif.ome_metadata
    labels = dataset_of(run)
    assert (float(labels.y[0]), float(labels.x[0])) == (10.25, -29.875)


def first_corner(path: Any) -> tuple[float, float]:
    """The least x and y of all objects."""
    features = json.loads(path.read_bytes())["features"]
    points = np.concatenate([np.array(ring) for each in features for ring in each["geometry"]["coordinates"]])
    return float(points[:, 0].min()), float(points[:, 1].min())


def test_a_slides_polygons_begin_where_qupath_crops_it(tmp_path: Path) -> None:
    image = case("e01_bounds.mrxs")
    labels = np.zeros((1024, 1024), np.uint8)
    labels[256:300, 256:340] = 1
    run = finished_run(image, tmp_path / "run", labels)
    with run.open_source() as source:
        assert source.bounds_px == (256, 256)
        export_run(run, source, "qupath,qupath-full")
    assert first_corner(run.exports / "qupath.geojson") == (0, 0)
    assert first_corner(run.exports / "qupath-full.geojson") == (256, 256)
    # The same file names the same pixels when it says which part is meant.
    with open_source(image) as source:
        assert Region.parse(str(run.exports / "qupath.geojson"), source).bounds == (256, 256, 300, 340)
        drawn = read_geojson(Path(str(run.exports / "qupath.geojson")), None, bounds_px=source.bounds_px)
    assert (drawn.labels(Box(0, 0, 1024, 1024)) == labels).all()
