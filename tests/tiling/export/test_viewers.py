"""The mask in the readers that viewers use: OME-Zarr's own, and this package's for napari."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zarr
from cli import write_tissue
from finished import CLASSES, finished_run, labels_of
from npe2 import PluginManager, PluginManifest
from npe2.io_utils import read_get_reader
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr.writer import write_image

from tiling.geometry import OutputGrid
from tiling.napari_reader import get_reader, read_run
from tiling.objects.build import build_objects
from tiling.objects.record import ask_for_objects
from tiling.objects.rule import builtin_rule
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run

MANIFEST = Path(__file__).parents[3] / "tiling" / "napari.yaml"


@contextmanager
def registered() -> Generator[PluginManager]:
    """npe2's plugins, this package's among them."""
    manager = PluginManager.instance()
    manager.register(PluginManifest.from_file(MANIFEST))
    try:
        yield manager
    finally:
        manager.unregister("overtile")


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    image = data_dir / "slides" / "CMU-1-Small-Region.svs"
    half = OutputGrid((Fraction(1, 2), Fraction(1, 2)))
    return finished_run(image, tmp_path_factory.mktemp("run") / "run", core=512, grid=half, failed=[(0, 1)])


def test_ome_zarrs_own_reader_opens_the_mask_over_its_image(run: Run, tmp_path: Path) -> None:
    """As napari-ome-zarr does: the slide as OME-Zarr, and the mask among its labels."""
    image = tmp_path / "slide.ome.zarr"
    size = run.pixel_size
    assert size is not None
    with run.open_source() as source:
        pixels = np.moveaxis(source.read(0, source.levels[0].box), -1, 0)
    root = zarr.open_group(image, mode="w", zarr_format=3)
    write_image(pixels, root, axes="cyx", scale_factors=[])
    described: Any = root.attrs["ome"]
    (dataset,) = described["multiscales"][0]["datasets"]
    dataset["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, size.y, size.x]}]
    root.attrs["ome"] = described
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["mask"]}
    (image / "labels" / "mask").symlink_to(str(run.mask_path))
    location = parse_url(image)
    assert location is not None
    nodes = [node for node in Reader(location)() if node.data]
    (found,), (below,) = (
        [node for node in nodes if ("properties" in node.metadata) == is_label] for is_label in (True, False)
    )
    assert [level.shape for level in found.data] == [level.shape for level in run.open_mask().levels]
    np.testing.assert_array_equal(np.asarray(found.data[0]), labels_of(run))
    assert found.metadata["properties"][2]["name"] == CLASSES[2][0]
    assert found.metadata["color"][1] == [int("e69f00"[i : i + 2], 16) / 255 for i in (0, 2, 4)] + [1.0]
    over, under = extent_of(found), extent_of(below)
    assert over == pytest.approx(under, abs=2 * size.y), "they cover the same ground, up to an odd last pixel"


def extent_of(node: Any) -> list[float]:
    """Upper left and lower right corners in physical units."""
    scale, *shift = node.metadata["coordinateTransformations"][0]
    sides = scale["scale"][-2:]
    first = shift[0]["translation"][-2:] if shift else [0.0, 0.0]
    corner = [at - side / 2 for at, side in zip(first, sides, strict=True)]
    shape = node.data[0].shape[-2:]
    return [*corner, *(at + side * count for at, side, count in zip(corner, sides, shape, strict=True))]


def test_the_manifest_passes_npe2s_own_validation() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.contributions.readers is not None


def test_napari_opens_a_run_folder(run: Run) -> None:
    with registered():
        layers, reader = read_get_reader([str(run.path)], plugin_name="overtile", stack=False)
    assert reader.accepts_directories
    (image, of_image, image_kind), (mask, of_mask, mask_kind) = cast("list[tuple[Any, Any, Any]]", layers)
    assert (image_kind, mask_kind) == ("image", "labels")
    assert of_image["rgb"]
    np.testing.assert_array_equal(np.asarray(mask[0]), labels_of(run))
    assert of_mask["colormap"][1] == CLASSES[1][1]
    assert None in of_mask["colormap"]
    image_ends = [side * n for side, n in zip(of_image["scale"], image[0].shape, strict=False)]
    mask_ends = [side * n for side, n in zip(of_mask["scale"], mask[0].shape, strict=True)]
    assert mask_ends == pytest.approx(image_ends, abs=1.0)
    assert of_mask["scale"] == [2 * side for side in of_image["scale"]]
    assert of_mask["translate"] == [side / 2 for side in of_image["scale"]]


def test_napari_opens_a_runs_card_without_asking_which_reader_to_take(run: Run) -> None:
    with registered() as manager:
        (reader,) = manager.iter_compatible_readers(str(run.path / "run.json"))
        assert reader.command == "overtile.read_run"
        layers, _ = read_get_reader([str(run.path / "run.json")], stack=False)
        assert [kind for _, _, kind in cast("list[tuple[Any, Any, Any]]", layers)] == ["image", "labels"]
        for other in ("slide.svs", "mask.ome.tif", "picture.png", "data.json"):
            assert not list(manager.iter_compatible_readers(other)), f"{other} is asked for beside its own reader"


def test_a_mask_of_one_level_is_no_pyramid_in_napari(tmp_path: Path) -> None:
    """Of labels napari takes the array out of a list of one, and fails where the metadata name a pyramid."""
    run = finished_run(write_tissue(tmp_path / "small.tif", 200, 160), tmp_path / "run")
    assert len(run.open_mask().levels) == 1
    _, (mask, looks, _) = read_run(str(run.path))
    assert not looks["multiscale"]
    np.testing.assert_array_equal(np.asarray(mask), labels_of(run))


def test_numbered_objects_are_a_layer_in_napari_while_they_are_those_of_the_mask(tmp_path: Path) -> None:
    run = finished_run(write_tissue(tmp_path / "small.tif", 200, 160), tmp_path / "run")
    spec, state = ObjectSpec(), run.ledger.fold(held=True)
    ask_for_objects(run, state, spec)
    built = build_objects(run, state, spec, builtin_rule(spec))
    _, (_, of_mask, _), (objects, looks, kind) = read_run(str(run.path))
    assert (kind, looks["visible"], looks["scale"]) == ("labels", False, of_mask["scale"])
    np.testing.assert_array_equal(np.asarray(objects), built.read(run.plan.mask))
    assert looks["features"]["class"][1:] == [run.classes[label].name for label in built.classes[1:].tolist()]
    ask_for_objects(run, state, ObjectSpec(least_px={1: 9}))
    assert len(read_run(str(run.path))) == 2, "those of another rule aren't shown"


def test_napari_gives_other_folders_to_others(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text(json.dumps({}))
    assert get_reader(str(tmp_path)) is None
    assert get_reader([str(tmp_path)]) is None
