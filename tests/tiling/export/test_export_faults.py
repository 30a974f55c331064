"""A disk that fills and a writer that dies: an export is whole or not there, and earlier ones are kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from exported_runs import WRITABLE
from finished import blobs, finished_run, numbered, write_labels
from interrupted import BALLAST, fill_disk
from tiny import write_noise_map

from tiling.errors import DiskError, ExportError
from tiling.export.export_run import export_run, is_shown
from tiling.export.finished import Finished
from tiling.export.formats import FORMATS, Format
from tiling.runs.run import Run

SIDE = 384
ROOMS = tuple(4096 * pages for pages in (*range(12), 16, 20, 24, 32, 64))
"""Bytes that are left: none, and so many that a file's begin, its middle or only its end finds none."""


def export(run: Run, formats: str) -> list[str]:
    with run.open_source() as source:
        return [each.name for each in export_run(run, source, formats)]


def files_of(run: Run) -> dict[str, bytes]:
    assert isinstance(run.exports, Path)
    return {path.name: path.read_bytes() for path in sorted(run.exports.glob("*"))}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_map(tmp_path_factory.mktemp("scene") / "scene.tif", SIDE, SIDE)


@pytest.fixture(autouse=True)
def _one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OGR_CURRENT_DATE", "2026-01-01T00:00:00.000Z")  # GDAL writes it into a GeoPackage


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "anndata" else []) for name in WRITABLE]
)
def test_on_a_disk_that_fills_an_export_is_whole_or_not_there(
    name: str, scene: Path, small_disk: Path, tmp_path: Path
) -> None:
    roomy = finished_run(scene, tmp_path / "roomy", core=128, probabilities=True)
    run = finished_run(scene, small_disk / "run", core=128, probabilities=True)
    if FORMATS[name].of_instances:
        numbered(roomy)
        numbered(run)
    export(roomy, name)
    whole = files_of(roomy)
    refusals = [refused for room in ROOMS if (refused := refusal(run, name, room, small_disk / BALLAST, whole))]
    assert refusals, "the disk never was too small"
    assert all("make space" in message and "\n" not in message for message in refusals), refusals
    export(run, name)
    assert files_of(run) == whole


def refusal(run: Run, name: str, room: int, ballast: Path, whole: dict[str, bytes]) -> str | None:
    """What an export says with so much room, None where it is written; what is there afterwards is removed again."""
    fill_disk(ballast)
    os.truncate(ballast, ballast.stat().st_size - room)
    try:
        export(run, name)
    except (ExportError, DiskError) as error:
        message = str(error)
    else:
        message = None
    there = files_of(run)
    # Beside a refusal a whole file may be there, of which the ledger for want of room could not say so.
    assert (there == whole) if message is None else (there.items() <= whole.items()), room
    for file in there:
        (run.exports / file).unlink()
    ballast.unlink()
    return message


def test_every_pixel_an_object_fills_the_disk_with_their_list(small_disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "checks.tif"
    tifffile.imwrite(image, np.zeros((512, 512, 3), np.uint8), photometric="rgb")
    labels = (np.indices((512, 512)).sum(0) % 2 + 1).astype(np.uint8)
    run = finished_run(image, small_disk / "run", labels, core=256)
    with pytest.raises(ExportError, match=r"list of objects .* make space in .*run/exports"):
        export(run, "qupath")
    assert files_of(run) == {}


def test_an_export_that_fails_leaves_the_earlier_file_and_nothing_else(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(scene, tmp_path / "run")
    export(run, "qupath")
    before = files_of(run)
    write_labels(run, blobs(run.plan.mask.shape, 8))

    def broken(*_: object) -> None:
        raise ValueError("the disk\nis gone")

    monkeypatch.setattr("tiling.export.qupath.write_features", broken)
    with pytest.raises(ExportError, match=r"qupath of .* can't be written \(the disk is gone\)") as refused:
        export(run, "none")
    assert "make space" not in str(refused.value), "what is no fault of the disk doesn't ask for room"
    assert files_of(run) == before


@pytest.mark.parametrize("threads", [1, 4])
def test_one_writer_that_fails_keeps_no_other_format_from_being_known(
    threads: int, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(scene, tmp_path / "run")
    others = ("statistics", "ome-tiff", "geojson")

    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched, run.open_source() as source:
        patched.setattr("tiling.export.qupath.write_features", broken)
        patched.setattr(Format, "write", slowly(Format.write))
        with pytest.raises(ExportError, match=r"qupath of .* can't be written .*make space in"):
            export_run(run, source, f"qupath,{','.join(others)}", threads=threads)
    assert set(files_of(run)) == {file for name in others for file in FORMATS[name].files}
    state = run.ledger.fold()
    assert {name for name in FORMATS if is_shown(run, state, name)} == set(others)
    write_labels(run, blobs(run.plan.mask.shape, 8))
    assert set(export(run, "none")) == set(others), "what was announced is refreshed after a rerun"


def slowly(write: Callable[[Format, Finished, Sequence[Path]], None]) -> Callable[..., None]:
    """The objects' writers begin only when QuPath's has failed."""

    def write_later(form: Format, finished: Finished, paths: Sequence[Path]) -> None:
        if form.name == "geojson":
            qupath_ended.wait(20)
        try:
            write(form, finished, paths)
        finally:
            if form.name == "qupath":
                qupath_ended.set()

    qupath_ended = threading.Event()
    return write_later
