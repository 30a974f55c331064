"""Orientation, decided once for all formats: pixels as they are stored, as this field shows them, and a note."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from case_files import case
from PIL import Image
from tiny import save_tiny

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.worker.tuning import tune
from tiling.selection.choose_view import choose_view
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import open_source

ANY = ModelRequirements("any", None, "uint8")
PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "orientation"), [("a07_orient3.tif", 3), ("a07_orient6.tif", 6), ("g05_exif6.jpg", 6)]
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_cases_are_as_stored_and_told(name: str, orientation: int) -> None:
    with open_source(case(name)) as source, rasterio.open(case(name)) as theirs:
        assert source.orientation == orientation
        np.testing.assert_array_equal(source.read(0, source.levels[0].box), np.moveaxis(theirs.read(), 0, -1))
    note = choose_view(case(name), ViewRequest(as_is=True), ANY).notes["orientation"]
    assert f"orientation {orientation} " in note
    assert "as they are stored" in note


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", [1, 2, 5, 8])
def test_every_format_says_the_same(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    if suffix == ".tif":
        tags: Any = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, PIXELS, photometric="rgb", metadata=None, extratags=tags)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(PIXELS).save(path, exif=exif, lossless=True)
    with open_source(path) as source:
        assert source.orientation == orientation
        assert (source.levels[0].height, source.levels[0].width) == (40, 60)
        if suffix != ".jpg":
            np.testing.assert_array_equal(source.read(0, source.levels[0].box), PIXELS)
    assert ("orientation" in choose_view(path, ViewRequest(as_is=True), ANY).notes) == (orientation != 1)


def test_an_exif_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    data = case("g05_exif6.jpg").read_bytes()
    at = data.index(b"MM\0*")
    (tmp_path / "broken.jpg").write_bytes(data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :])
    with open_source(tmp_path / "broken.jpg") as source:
        assert source.orientation == 1


def test_the_log_says_it_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags: Any = [(274, "H", 1, 3, True)]
    tifffile.imwrite(tmp_path / "turned.tif", PIXELS, photometric="rgb", metadata=None, extratags=tags)
    model = save_tiny(tmp_path / "model")
    asked: dict[str, Any] = {"core": 64, "foreground": "none", "as_is": True}
    config = SegmentConfig(image=tmp_path / "turned.tif", model=str(model), out=tmp_path / "run", **asked)
    prepare(config, 1, partial(tune, device="cpu"))
    assert any("orientation 3 (upside down)" in record.getMessage() for record in caplog.records)
