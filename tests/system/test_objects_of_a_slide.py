"""Objects of a real slide are the same for every core, and those of the whole slide in one array; so is their table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from exported_runs import export, exported
from finished import finished_run, numbered, write_labels
from numpy.typing import NDArray
from object_oracle import objects_of
from oracle import segment_here
from pyarrow import parquet
from scipy import ndimage

from tiling.geometry import Box
from tiling.objects import build
from tiling.objects.build import build_objects
from tiling.objects.record import ask_for_objects
from tiling.objects.rule import builtin_rule
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run

SLIDE = "slides/CMU-1-Small-Region.svs"
CORES = (256, 512, 1024)
AREAS = ObjectSpec(least_px={1: 20}, filled=(1,))
BORDERS = ObjectSpec(rule="border", border=2, radius_px=4, least_px={1: 20}, filled=(1,))


@pytest.fixture(scope="module")
def labels(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """The shipped model's nuclei."""
    run = segment_here(data_dir / SLIDE, tmp_path_factory.mktemp("slide") / "run", 512)
    return np.asarray(run.open_mask(read_only=True).levels[0][:])


@pytest.mark.slow
@pytest.mark.parametrize("spec", [AREAS, BORDERS], ids=["components", "border"])
def test_objects_are_those_of_one_array_for_every_core(
    spec: ObjectSpec, labels: NDArray[np.uint8], data_dir: Path, tmp_path: Path
) -> None:
    seen_YX = with_rims(labels) if spec.rule == "border" else labels
    expected_YX = objects_of(seen_YX, spec)
    assert expected_YX.max() > 500
    for core in CORES:
        run = finished_run(data_dir / SLIDE, tmp_path / str(core), seen_YX, core=core)
        state = run.ledger.fold(held=True)
        ask_for_objects(run, state, spec)
        objects = build_objects(run, state, spec, builtin_rule(spec))
        np.testing.assert_array_equal(objects.read(Box(0, 0, *seen_YX.shape)), expected_YX)
        np.testing.assert_array_equal(objects.pixels[1:], np.bincount(expected_YX.ravel())[1:])


def with_rims(labels_YX: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With a rim of two pixels, as a model of interiors and borders gives it."""
    inner_YX = ndimage.binary_erosion(labels_YX == 1, iterations=2)
    return np.where(inner_YX, 1, np.where(labels_YX == 1, 2, labels_YX)).astype(np.uint8)


def generated(folder: Path, side_px: int = 4096) -> tuple[Path, NDArray[np.uint8]]:
    """An image of noise in three bands and discs on it, many of which touch and cross any border of tiles."""
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (side_px, side_px, 3), np.uint8)
    tifffile.imwrite(folder / "noise.tif", pixels, photometric="rgb", tile=(256, 256))
    labels_YX = np.zeros((side_px, side_px), np.uint8)
    for y, x, radius in zip(*random.integers(40, side_px - 40, (2, 4000)), random.integers(3, 30, 4000), strict=True):
        rows, cols = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        labels_YX[y - radius : y + radius + 1, x - radius : x + radius + 1][np.hypot(rows, cols) < radius] = 1
    return folder / "noise.tif", with_rims(labels_YX)


def rows_of(run: Run) -> dict[str, list[object]]:
    """All columns of all objects by their numbers, the polygons' bytes among them."""
    export(run, "geoparquet")
    return parquet.read_table(exported(run, "objects.parquet")).sort_by("id").to_pydict()


@pytest.mark.slow
@pytest.mark.parametrize("of", ["slide", "generated"])
def test_numbers_outlines_and_table_are_the_same_for_every_core_and_after_a_kill_and_a_rerun(
    of: str, labels: NDArray[np.uint8], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, seen_YX = (data_dir / SLIDE, with_rims(labels)) if of == "slide" else generated(tmp_path)
    whole = Box(0, 0, *seen_YX.shape)
    run = finished_run(image, tmp_path / "first", seen_YX, core=CORES[0])
    numbers_YX, rows = numbered(run, BORDERS).read(whole), rows_of(run)
    assert len(rows["id"]) > 500
    for core in CORES[1:]:
        other = finished_run(image, tmp_path / str(core), seen_YX, core=core)
        np.testing.assert_array_equal(numbered(other, BORDERS).read(whole), numbers_YX)
        assert rows_of(other) == rows
    # The mask of one tile is another, and the driver is killed while it numbers; then the tile is as it was.
    tile = max((each.valid for each in run.plan.tiles()), key=lambda box: np.count_nonzero(seen_YX[box.slices]))
    changed_YX = seen_YX.copy()
    changed_YX[tile.slices] = 0
    write_labels(run, changed_YX)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for moment in ("_put_in_place", "tree_digest"):
        with monkeypatch.context() as patch:
            patch.setattr(build, moment, killed)
            with pytest.raises(KeyboardInterrupt):
                numbered(run, BORDERS)
        changed = numbered(run, BORDERS).read(whole)
        assert not changed[tile.slices].any()
        assert not np.array_equal(changed, numbers_YX)
    write_labels(run, seen_YX)
    np.testing.assert_array_equal(numbered(run, BORDERS).read(whole), numbers_YX)
    assert rows_of(run) == rows
