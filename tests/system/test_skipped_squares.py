"""Glass of a slide is skipped by squares, so that labels, areas and objects are the same for any core."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli import tissue
from finished import labels_of
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from segmented import compute, segmented
from tiny import save_tiny

from flows.run.steps import find_objects, folded
from flows.run.verification import shifted
from flows.worker.tile_worker import TileWorker
from tiling.export.export_run import export_run
from tiling.export.statistics import read_statistics
from tiling.geometry import Halo, OutputGrid
from tiling.objects.image import open_objects
from tiling.plan import TilePlan
from tiling.runs.ledger import TileState
from tiling.runs.run import Run
from tiling.selection.foreground import Foreground

HEIGHT, WIDTH, SIDE = 325, 375, 128
CORES = (64, 128, 192, 512)
RING = [[15, 50], [350, 10], [362, 312], [175, 175], [5, 322]]


@pytest.fixture(autouse=True)
def small_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of 128 px, so that images are small; workers have them from the run's card."""
    monkeypatch.setattr("tiling.selection.foreground.SQUARE_PX", SIDE)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Glass with two pieces of tissue, half a micrometre per pixel; the same with an empty corner; polygons on it."""
    folder = tmp_path_factory.mktemp("slide")
    pixels = np.random.default_rng(0).integers(236, 246, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    pixels[25:100, 37:124] = tissue(75, 87)
    pixels[261:300, 258:276] = tissue(39, 18)
    held = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    held[175:, :155] = 0
    held[50:60, 120:140] = 0
    write(folder / "slide.tif", pixels)
    write(folder / "alpha.tif", np.concatenate([pixels, held], axis=-1), extrasamples=["unassalpha"])
    shape = {"type": "Polygon", "coordinates": [[*RING, RING[0]]]}
    (folder / "ring.geojson").write_text(json.dumps({"type": "Feature", "geometry": shape, "properties": {}}))
    return {"folder": folder, "model": save_tiny(folder / "tiny")}


def write(path: Path, pixels: NDArray[np.uint8], **more: Any) -> None:
    size: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="zlib", metadata=None, **size, **more)


def found_in(run: Run) -> dict[str, Any]:
    """All that a run found."""
    find_objects(run, state := folded(run))
    objects = open_objects(run)
    assert objects is not None
    with run.open_source() as source:
        export_run(run, source, "statistics")
    rows = read_statistics(run.exports / "statistics.parquet")
    assert sum(row["pixels"] for row in rows) == run.plan.mask.area
    assert not state.failed
    return {"labels": labels_of(run), "objects": objects.read(run.plan.mask), "rows": rows}


@pytest.mark.parametrize(("image", "region"), [("slide.tif", False), ("alpha.tif", True)])
def test_all_that_is_found_is_the_same_for_any_core(
    image: str, region: bool, inputs: dict[str, Path], tmp_path: Path
) -> None:
    folder, options = inputs["folder"], {"objects": "components", "as_is": True}
    if region:
        options |= {"region": str(inputs["folder"] / "ring.geojson")}
    runs = [segmented(folder / image, tmp_path / str(core), inputs["model"], core, **options) for core in CORES]
    assert runs[0].ledger.fold().count(TileState.SKIPPED) > runs[1].ledger.fold().count(TileState.SKIPPED) > 0
    assert runs[-1].ledger.fold().count(TileState.SKIPPED) == 0
    first, *others = (found_in(run) for run in runs)
    for other in others:
        np.testing.assert_array_equal(other["labels"], first["labels"])
        np.testing.assert_array_equal(other["objects"], first["objects"])
        assert other["rows"] == first["rows"]
    skipped = next(row["pixels"] for row in first["rows"] if row["class"] == "skipped as empty")
    assert skipped > 0.03 * runs[0].plan.mask.area


def test_a_tile_again_a_shifted_one_and_the_probabilities_are_cut_alike(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    options = {"as_is": True, "probabilities": True}
    run = segmented(inputs["folder"] / "slide.tif", tmp_path / "run", inputs["model"], 192, **options)
    labels, kept = labels_of(run), run.open_probabilities()
    assert kept is not None
    squares = run.squares
    assert squares is not None
    for box in squares.left_out():
        assert not labels[box.slices].any()
        assert not np.asarray(kept.pyramid.levels[0][(slice(None), *box.slices)]).any()
    compute(run, [0, 3])
    np.testing.assert_array_equal(labels_of(run), labels)
    worker, other = TileWorker(), shifted(run.plan)
    places = [(plan.core_px, tile.index) for plan in (run.plan, other) for tile in plan.tiles()]
    assert [worker.check(run.path, *each).differing for each in places] == [0] * len(places)


def test_a_run_that_began_by_tiles_ends_by_tiles(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = inputs["folder"] / "slide.tif", tmp_path / "run", inputs["model"], 192
    with monkeypatch.context() as patch:
        patch.setattr(Foreground, "in_squares", lambda self, extent: self)  # as an earlier version did
        patch.setattr("segmented.compute", lambda run, tiles: None)
        begun = segmented(*asked, as_is=True)
    skipped = begun.ledger.fold().count(TileState.SKIPPED)
    run = segmented(*asked, as_is=True)
    assert run.squares is None
    assert run.ledger.fold().count(TileState.SKIPPED) == skipped
    assert labels_of(run)[SIDE:192, :SIDE].any(), "a network's finds on glass"


@given(
    coarse=st.lists(st.sampled_from([False] * 9 + [True]), min_size=90, max_size=90),
    cores=st.lists(st.sampled_from([32, 48, 96, 128, 160, 320]), min_size=2, max_size=2, unique=True),
    scale=st.sampled_from([Fraction(1), Fraction(1, 2), Fraction(2)]),
)
def test_what_is_left_is_the_same_for_any_core_and_scale(
    coarse: list[bool],
    cores: list[int],
    scale: Fraction,
) -> None:
    extent, flags = (262, 300), np.zeros((17, 19), np.bool_)
    flags[::2, ::2] = np.array(coarse).reshape(9, 10)
    found = Foreground(flags, (16, 16), "").in_squares(extent)
    assert found.squares is not None
    found_for = []
    for core in cores:
        plan = TilePlan(extent, core, (16, 16), Halo(0, 0, 0, 0), OutputGrid((scale, scale), (0, 0), Halo(0, 0, 0, 0)))
        mask = np.zeros(plan.mask.shape, np.uint8)
        cut = found.squares.cut_by(plan)
        for tile in plan.tiles():
            assert cut[tile.index] != found.squares.cover(tile.core)
            if found.keeps(tile):
                mask[tile.valid.slices] = found.squares.cut(np.ones(tile.valid.shape, np.uint8), tile, plan)
        found_for.append(mask)
    np.testing.assert_array_equal(*found_for)
