"""Labels of objects inside of the OME-Zarr image that they are of: on the same ground, renewed, and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import ome_zarrs
import pytest
import zarr
from finished import blobs, finished_run, numbered
from finished import write_labels as write_tiles
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from segmented import segmented
from tiny import save_tiny, write_noise

from flows.config.base import checked
from flows.config.run import SegmentConfig
from flows.errors import ConfigError
from flows.run.objects import asked_rule
from flows.run.steps import find_objects, folded
from flows.run.verification import check_files
from tiling.errors import ExportError
from tiling.geometry import Box
from tiling.objects import write_labels as writing
from tiling.objects.image import open_objects
from tiling.objects.image_labels import ImageLabels
from tiling.objects.record import ask_for_objects
from tiling.objects.spec import ObjectSpec
from tiling.objects.write_labels import ask_for_labels, asked_labels, check_labels, write_labels
from tiling.runs.run import Run
from tiling.sources.version import ImageFiles
from unet_core.bundles.card import read_card

NAME = "none-objects"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    ome_zarrs.write(tmp_path / "image.zarr", "cyx", "0.5", levels=3)
    return tmp_path / "image.zarr"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def asked(image: Path, out: Path, level: int = 0) -> Run:
    run = finished_run(image, out, level=level, core=64)
    state = run.ledger.fold(held=True)
    ask_for_objects(run, state, ObjectSpec())
    ask_for_labels(run, state, ImageLabels.of(image, image, level, None, "none"))
    return run


def numbers_in(image: Path, level: int = 0) -> Any:
    return np.asarray(zarr.open_array(image / "labels" / NAME / str(level), mode="r")[:])


def numbers_of(run: Run) -> Any:
    found = open_objects(run)
    assert found is not None
    return found.read(Box(0, 0, *found.shape))


@pytest.mark.parametrize("level", [0, 1])
def test_labels_lie_on_the_image_and_leave_all_else_as_it_is(level: int, image: Path, tmp_path: Path) -> None:
    before, version = files_of(image), ImageFiles(image, "ome-zarr-0.5").whole()
    run = asked(image, tmp_path / "run", level)
    find_objects(run, folded(run))
    assert numbers_in(image).max() > 20
    np.testing.assert_array_equal(numbers_in(image), numbers_of(run))
    np.testing.assert_array_equal(numbers_in(image, 2), numbers_of(run)[::4, ::4])
    after = files_of(image)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("labels/") for name in after.keys() - before.keys())
    assert ImageFiles(image, "ome-zarr-0.5").whole() == version, "labels are no part of the image"
    assert json.loads(after["labels/zarr.json"])["attributes"]["ome"] == {"version": "0.5", "labels": [NAME]}
    ome = cast("Any", zarr.open_group(image / "labels" / NAME, mode="r").attrs["ome"])
    assert ome["image-label"]["source"] == {"image": "../../"}
    (scales,) = ome["multiscales"]
    theirs = cast("Any", zarr.open_group(image, mode="r").attrs["ome"])["multiscales"][0]
    assert scales["axes"] == theirs["axes"][1:]
    assert len(scales["datasets"]) == len(theirs["datasets"])
    said = theirs["datasets"][level]["coordinateTransformations"][0]["scale"][1:]
    assert scales["datasets"][0]["coordinateTransformations"][0] == {"type": "scale", "scale": said}
    assert check_labels(run, folded(run)) is None


def test_a_public_reader_takes_them(image: Path, tmp_path: Path) -> None:
    validator = pytest.importorskip("ome_zarr_models.v05", reason="ome-zarr-models has no release for this Python")
    run = asked(image, tmp_path / "run")
    find_objects(run, folded(run))
    validator.Labels.from_zarr(zarr.open_group(image / "labels", mode="r"))
    validator.ImageLabel.from_zarr(zarr.open_group(image / "labels" / NAME, mode="r"))


def test_the_reader_of_napari_ome_zarr_opens_them_with_the_image(image: Path, tmp_path: Path) -> None:
    run = asked(image, tmp_path / "run")
    find_objects(run, folded(run))
    location = parse_url(image)
    assert location is not None
    (found,) = [node for node in Reader(location)() if node.zarr.path.endswith(NAME) and node.data]
    assert [level.shape for level in found.data] == [numbers_in(image, level).shape for level in range(3)]
    np.testing.assert_array_equal(np.asarray(found.data[0]), numbers_of(run))


def test_others_labels_stay_and_are_listed_on(image: Path, tmp_path: Path) -> None:
    group = zarr.create_group(image / "labels", zarr_format=3)
    group.attrs.update({"ome": {"version": "0.5", "labels": ["cells"]}, "mine": 1})
    group.create_array("cells", shape=(4, 4), dtype="uint8")
    before = files_of(image / "labels" / "cells")
    run = asked(image, tmp_path / "run")
    find_objects(run, folded(run))
    attributes = json.loads((image / "labels" / "zarr.json").read_bytes())["attributes"]
    assert attributes == {"ome": {"version": "0.5", "labels": ["cells", NAME]}, "mine": 1}
    assert files_of(image / "labels" / "cells") == before
    other = finished_run(image, tmp_path / "other", core=64)
    with pytest.raises(ExportError, match="this run hasn't written it"):
        ask_for_labels(other, folded(other), ImageLabels.of(image, image, 0, None, "none"))
    ask_for_labels(other, folded(other), ImageLabels.of(image, image, 0, None, "none 2/x"))
    assert asked_labels(folded(other)) is not None


def test_they_are_renewed_with_the_mask_and_repaired(image: Path, tmp_path: Path) -> None:
    run = asked(image, tmp_path / "run")
    find_objects(run, folded(run))
    write_tiles(run, blobs(run.plan.mask.shape, seed=1))
    assert check_labels(run, folded(run)) == (str(image / "labels" / NAME), "they are not built")
    find_objects(run, folded(run))
    np.testing.assert_array_equal(numbers_in(image), numbers_of(run))
    assert check_labels(run, folded(run)) is None
    shard = next(each for each in sorted((image / "labels" / NAME / "0" / "c").rglob("*")) if each.is_file())
    shard.write_bytes(b"nothing")
    found = [check_files(run, folded(run)) for _ in range(2)]  # also where it is known already
    assert [each[str(image / "labels" / NAME)] for each in found] == ["they aren't what was written"] * 2
    state = folded(run)
    find_objects(run, state)
    np.testing.assert_array_equal(numbers_in(image), numbers_of(run))
    assert sorted(each.name for each in (image / "labels").iterdir()) == [NAME, "zarr.json"]


@pytest.mark.parametrize("moment", ["_write", "tree_digest"])
def test_a_kill_leaves_none_of_another_rule_that_count(
    moment: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asked(image, tmp_path / "run")
    find_objects(run, folded(run))
    first = numbers_in(image)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    numbered(run, ObjectSpec(least_px={1: 20}))
    with monkeypatch.context() as patch:
        patch.setattr(writing, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            write_labels(run, folded(run))
    numbered(run)
    found = check_labels(run, folded(run))
    assert (found is None) == (moment == "_write")
    write_labels(run, folded(run))
    np.testing.assert_array_equal(numbers_in(image), first)
    assert check_labels(run, folded(run)) is None
    assert sorted(each.name for each in (image / "labels").iterdir()) == [NAME, "zarr.json"]


def test_what_isnt_the_image_itself_is_refused(image: Path, tmp_path: Path) -> None:
    def refused(into: Path, of: Path, said: str) -> None:
        with pytest.raises(ExportError, match=said) as raised:
            ImageLabels.of(into, of, 0, None, "none")
        assert "\n" not in str(raised.value)

    ome_zarrs.write(tmp_path / "other.zarr", "cyx", "0.5")
    refused(tmp_path / "other.zarr", image, "isn't the image that is segmented")
    refused(tmp_path / "nowhere.zarr", image, "no folder on a disk")
    ome_zarrs.write(tmp_path / "old.zarr", "cyx", "0.4")
    refused(tmp_path / "old.zarr", tmp_path / "old.zarr", r"OME-Zarr 0\.4")
    ome_zarrs.write(tmp_path / "deep.zarr", "zyx", "0.5")
    refused(tmp_path / "deep.zarr", tmp_path / "deep.zarr", "several focal planes")
    refused(image, write_noise(tmp_path / "noise.tif", 64, 64), "is no OME-Zarr")
    (image / "labels").mkdir()
    for damaged in (
        "{",
        '{"attributes": []}',
        '{"attributes": {"ome": [1]}}',
        '{"attributes": {"ome": {"labels": "cells"}}}',
    ):
        (image / "labels" / "zarr.json").write_text(damaged)
        refused(image, image, "is damaged")
    (image / "labels" / "zarr.json").unlink()
    (image / "labels" / ".zgroup").write_bytes(b"{}")
    refused(image, image, "of another format")
    config = checked(SegmentConfig, {"image": image, "out": "out", "objects": "none", "labels_into": image})
    with pytest.raises(ConfigError, match="--labels-into"):
        asked_rule(config, read_card(save_tiny(tmp_path / "model")), [])


def test_a_segmentation_that_is_asked_for_them_writes_them(image: Path, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    options: dict[str, Any] = {"foreground": "none", "as_is": True, "labels_into": image, "objects": "auto"}
    run = segmented(image, tmp_path / "run", model, 64, **options)
    find_objects(run, folded(run))
    asked_for = asked_labels(folded(run))
    assert asked_for is not None
    found = np.asarray(zarr.open_array(asked_for[0].path / "0", mode="r")[:])
    np.testing.assert_array_equal(found, numbers_of(run))
    again = segmented(image, tmp_path / "run", model, 64, **options)
    assert asked_labels(folded(again)) == asked_for
    with pytest.raises(ExportError, match="nothing of another's is overwritten"):
        segmented(image, tmp_path / "other", model, 64, **options)
    assert not (tmp_path / "other").exists()
