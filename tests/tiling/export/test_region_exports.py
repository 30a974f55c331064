"""A run of a region lies where the region does, in every file and reader that says where."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli import on_disk
from finished import finished_run, numbered
from ome_types import from_tiff
from pyarrow import parquet
from shown import let_in

from flows.viewer.library import Library
from tiling.export.export_run import export_run
from tiling.geometry import IMAGE_GRID, OutputGrid, PixelSize
from tiling.napari_reader import read_run
from tiling.runs.ome_metadata import LabelClass, label_metadata, probability_metadata
from tiling.runs.run import Run
from tiling.view import View

TOP, LEFT = 40, 60
HALF_UM = 0.5


def region_run(folder: Path, *, sized: bool = True, probabilities: bool = False) -> Run:
    """A run of 128 x 160 px, which begins at row 40 and column 60 of its image."""
    shape = (128, 160)
    image, cut = folder / "image.tif", folder / "cut.tif"
    size: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"} if sized else {}
    tifffile.imwrite(image, np.zeros((300, 280, 3), np.uint8), photometric="rgb", metadata=None, **size)
    tifffile.imwrite(cut, np.zeros((*shape, 3), np.uint8), photometric="rgb", metadata=None, **size)
    run = finished_run(cut, folder / "run", probabilities=probabilities)
    view = View(region=(TOP, LEFT, TOP + shape[0], LEFT + shape[1]))
    described = run.card.image.model_copy(update={"path": str(image), "view": view})
    (folder / "run" / "run.json").write_text(run.card.model_copy(update={"image": described}).model_dump_json())
    return Run.open(folder / "run")


@pytest.mark.parametrize("name", ["mask.ome.tif", "probabilities.ome.tif"])
def test_the_planes_of_an_ome_tiff_begin_at_the_regions_corner(name: str, tmp_path: Path) -> None:
    run = region_run(tmp_path, probabilities=True)
    with run.open_source() as source:
        export_run(run, source, "ome-tiff,probabilities-ome-tiff")
    planes = from_tiff(tmp_path / "run" / "exports" / name).images[0].pixels.planes
    assert planes
    for plane in planes:
        assert (plane.position_y, plane.position_x) == (TOP * HALF_UM, LEFT * HALF_UM)
        assert plane.position_y_unit.value == plane.position_x_unit.value == "µm"


def test_without_a_pixel_size_the_corner_is_in_pixels(tmp_path: Path) -> None:
    run = region_run(tmp_path, sized=False)
    with run.open_source() as source:
        export_run(run, source, "ome-tiff")
    (plane,) = from_tiff(tmp_path / "run" / "exports" / "mask.ome.tif").images[0].pixels.planes
    assert (plane.position_y, plane.position_x, plane.position_x_unit.value) == (TOP, LEFT, "pixel")


def test_naparis_layers_begin_at_the_regions_corner(tmp_path: Path) -> None:
    for _, facts, _ in read_run(str(region_run(tmp_path, probabilities=True).path)):
        assert facts["translate"] == [TOP * HALF_UM, LEFT * HALF_UM]


def test_the_page_knows_the_regions_corner(tmp_path: Path) -> None:
    with let_in(Library(region_run(tmp_path).path)) as client:
        assert client.get("/api/run").json()["image"]["corner"] == {"y": TOP, "x": LEFT}


@pytest.mark.parametrize("grid", [IMAGE_GRID, OutputGrid((Fraction(1, 2), Fraction(1, 2)))])
def test_every_level_of_an_ome_zarr_is_moved_by_the_corner_alone(grid: OutputGrid) -> None:
    """So that the levels' corners stay one: the half-pixel shift is as without a region."""
    size, classes = PixelSize(HALF_UM, HALF_UM, "um"), [LabelClass("background", "#000000")]
    for made in (
        lambda corner: label_metadata(3, classes, 255, size, grid, corner),
        lambda corner: probability_metadata(3, classes, size, grid, corner),
    ):
        whole, region = (made(corner)["multiscales"][0]["datasets"] for corner in ((0, 0), (TOP, LEFT)))
        for before, after in zip(whole, region, strict=True):
            (scale, old), (same, new) = before["coordinateTransformations"], after["coordinateTransformations"]
            assert scale == same
            moved = np.subtract(new["translation"], old["translation"])[-2:]
            assert moved.tolist() == [TOP * HALF_UM, LEFT * HALF_UM]


def test_a_run_s_own_mask_begins_at_the_regions_corner(tmp_path: Path) -> None:
    run = region_run(tmp_path, probabilities=True)
    for place, create in (
        (run.mask_path, run.create_mask),
        (run.path / "probabilities.ome.zarr", run.create_probabilities),
    ):
        shutil.rmtree(on_disk(place))
        create()
        scales = json.loads((place / "zarr.json").read_bytes())["attributes"]["ome"]["multiscales"][0]["datasets"]
        moved = [each["coordinateTransformations"][1]["translation"][-2:] for each in scales]
        assert moved[0] == [TOP * HALF_UM, LEFT * HALF_UM]


def test_a_table_of_objects_has_the_images_places_and_its_values(tmp_path: Path) -> None:
    run = region_run(tmp_path)
    rows, cols = np.indices((300, 280))
    pixels = np.stack([rows % 256, cols % 256, rows * 0], axis=-1).astype(np.uint8)
    size: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="rgb", metadata=None, **size)
    numbered(run)
    with run.open_source() as source:
        export_run(run, source, "table")
    table = parquet.read_table(tmp_path / "run" / "exports" / "objects-table.parquet").to_pydict()
    found = {name: np.array(values) for name, values in table.items()}
    np.testing.assert_allclose(found["centroid_y_image"], found["centroid_y"] + TOP + 0.5)
    np.testing.assert_allclose(found["centroid_x_um"], (found["centroid_x"] + LEFT + 0.5) * HALF_UM)
    np.testing.assert_allclose(found["red_mean"], found["centroid_y"] + TOP)
    np.testing.assert_allclose(found["green_mean"], found["centroid_x"] + LEFT)
    edge = (found["box_y0"] == 0) | (found["box_x0"] == 0) | (found["box_y1"] == 128) | (found["box_x1"] == 160)
    assert found["touches_border"].tolist() == edge.tolist(), "the border is the region's"
