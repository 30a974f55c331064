"""Segments of a TIFF that don't decode: what needs them fails, or with `damaged=mask` their pixels are no data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from segmented import segmented
from small_bundles import noise
from tiny import save_tiny

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.worker.tuning import Tuning
from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.runs.run import Run
from tiling.selection import choose_view
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import open_source

PLACE = Box(64, 64, 128, 128)


def write_damaged(path: Path, *damaged: int) -> Path:
    """An image of 16 tiles of 64 px, some of which hold other bytes than a decoder takes."""
    tifffile.imwrite(path, noise(256, 256, 0), photometric="rgb", tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        offsets = [page.dataoffsets[segment] for segment in damaged]
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(b"\xff" * 64)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def labels_of(run: Run) -> np.ndarray:
    return np.asarray(run.open_mask().levels[0][:])


def test_pixels_of_a_segment_that_does_not_decode_are_no_data_and_no_others(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = segmented(write_damaged(tmp_path / "whole.tif"), tmp_path / "whole", model, 64, foreground="none")
    options = {"foreground": "none", "damaged": "mask"}
    run = segmented(write_damaged(tmp_path / "a.tif", 5), tmp_path / "run", model, 64, **options)
    labels, expected = labels_of(run), labels_of(whole)
    held = np.ones((256, 256), np.bool_)
    held[PLACE.slices] = False
    assert run.ledger.fold().is_complete
    assert (labels[~held] == 255).all()
    assert (labels[held] != 255).all()
    assert np.array_equal(labels[160:], expected[160:]), "far from the damage nothing changes"
    assert run.card.notes["damaged"].startswith(
        "1 segment of the file doesn't decode, and its pixels hold no data: 5 ["
    )
    assert caplog.text.count(run.card.notes["damaged"]) == 1, "whoever sits before it is told once"
    assert str(PLACE) in run.card.notes["damaged"]
    assert run.card.image.no_data is not None
    assert "segments that don't decode" in run.card.image.no_data.told_by


def test_by_default_the_tiles_that_need_it_fail(tmp_path: Path, model: Path) -> None:
    run = segmented(write_damaged(tmp_path / "a.tif", 5), tmp_path / "run", model, 64, foreground="none")
    state = run.ledger.fold()
    assert 1 <= len(state.failed) <= 9
    assert all("segment 5" in (record.reason or "") for record in state.failed.values())


def test_the_same_again_resumes_and_the_other_way_is_another_run(tmp_path: Path, model: Path) -> None:
    image = write_damaged(tmp_path / "a.tif", 5)
    first = segmented(image, tmp_path / "run", model, 64, foreground="none", damaged="mask")
    asked = {"image": image, "out": tmp_path / "run", "model": str(model), "core": 64, "foreground": "none"}
    config = SegmentConfig.model_validate({**asked, "damaged": "mask"})
    again = prepare(config, 1, lambda _: Tuning("float32", 64, {}))
    assert again.card == first.card
    with pytest.raises(Exception, match="view: "):
        prepare(SegmentConfig.model_validate(asked), 1, lambda _: Tuning("float32", 64, {}))


def test_a_whole_image_is_the_same_run_either_way(tmp_path: Path, model: Path) -> None:
    run = segmented(write_damaged(tmp_path / "a.tif"), tmp_path / "run", model, 64, foreground="none", damaged="mask")
    assert run.card.image.view is None
    assert run.card.image.no_data is None


def test_each_segment_is_found_once_and_too_many_are_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_damaged(tmp_path / "a.tif", 0, 7, 15)
    with open_source(image) as source:
        found = source.damaged_segments(0)
    assert [(each.key, each.place) for each in found] == [
        ((0, 0, 0), Box(0, 0, 64, 64)),
        ((0, 0, 7), Box(64, 192, 128, 256)),
        ((0, 0, 15), Box(192, 192, 256, 256)),
    ]
    monkeypatch.setattr(choose_view, "MOST_DAMAGED", 2)
    request = ViewRequest(damaged="mask")
    with pytest.raises(SourceError, match=r"3 segments don't decode.*restore the file"):
        choose_view.choose_view(image, request, ModelRequirements("m", None, "uint8"))
