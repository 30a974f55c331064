"""Pipes, devices and folders where a file of ours is to be, and the longest names: one line, and nobody waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import write_noise

from tiling.archives.archive import Archive
from tiling.errors import RunError
from tiling.runs.pyramid_metadata import is_made, open_group
from tiling.runs.run import Run
from tiling.selection.outline import Outline
from tiling.source import open_source


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("made", [os.mkfifo, _device, Path.mkdir], ids=["pipe", "device", "folder"])
@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("run.json", Run.open),
        ("archive.json", Archive.open),
        ("outline.json", lambda folder: Outline.load(folder / "outline.json", "")),
        ("zarr.json", lambda folder: open_group(folder, "mask", read_only=True)),
        ("zarr.json", lambda folder: open_group(folder, "mask", read_only=False)),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    made: Callable[[Path], object], name: str, ask: Callable[[Path], Any], tmp_path: Path
) -> None:
    made(tmp_path / name)
    with pytest.raises((RunError, OSError)) as raised:
        ask(tmp_path)
    assert "\n" not in str(raised.value)
    assert name.removesuffix(".json") in str(raised.value) or str(tmp_path) in str(raised.value)
    assert name != "zarr.json" or is_made(tmp_path)


@pytest.mark.parametrize("letter", ["x", "é", "漢"])
def test_an_image_may_have_the_longest_name_that_there_is(letter: str, tmp_path: Path) -> None:
    longest = letter * (251 // len(letter.encode())) + ".tif"
    image = write_noise(tmp_path / longest, 64, 64)
    with open_source(image) as source:
        assert source.levels[0].box.shape == (64, 64)
        assert source.fingerprint()
