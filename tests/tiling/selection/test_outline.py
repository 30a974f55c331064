"""A region given by polygons: nothing outside of them is labelled, to the pixel, whoever computes the tile and when."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import finished_run, labels_of
from numpy.typing import NDArray
from PIL import Image
from rasterio import features
from tiny import save_tiny, write_noise

from flows.config.run import RerunConfig, SegmentConfig
from flows.reporting.areas import Areas
from flows.reporting.report import render_report
from flows.run.prepare import prepare
from flows.run.steps import record_result, remaining, reopen, stitch
from flows.run.verification import shifted
from flows.worker.result import TileResult
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.errors import RunError
from tiling.export.export_run import export_run
from tiling.export.statistics import read_statistics
from tiling.geometry import Box, OutputGrid
from tiling.runs.ledger import PLANNED, TileState
from tiling.runs.run import Run
from tiling.runs.uncomputed import OUTSIDE_NAME, SKIPPED_NAME
from tiling.selection.foreground import Foreground
from tiling.selection.outline import Outline
from tiling.selection.polygons import Polygon, Polygons

HEIGHT, WIDTH = 500, 600
# x before y, as GeoJSON has it; no coordinate is a pixel's centre.
RING = [(61.2, 40.9), (570.3, 60.1), (420.7, 250.3), (360.1, 470.8), (100.4, 430.2)]
HOLE = [(200.1, 150.2), (330.9, 160.3), (260.2, 290.1)]
TOP, LEFT, BOTTOM, RIGHT = 40, 61, 471, 571
DRAWN: NDArray[np.uint8] = np.asarray(
    features.rasterize([({"type": "Polygon", "coordinates": [RING, HOLE]}, 1)], (HEIGHT, WIDTH), dtype="uint8")
)
INSIDE = DRAWN[TOP:BOTTOM, LEFT:RIGHT].astype(bool)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    rings = [[*ring, ring[0]] for ring in (RING, HOLE)]
    drawn = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": rings}}
    polygons = folder / "drawn.geojson"
    polygons.write_text(json.dumps({"type": "FeatureCollection", "features": [drawn]}))
    image = write_noise(folder / "noise.tif", HEIGHT, WIDTH)
    return {"image": image, "model": save_tiny(folder / "tiny"), "polygons": polygons, "folder": folder}


def planned(inputs: dict[str, Path], out: Path, region: str, **more: Any) -> Run:
    asked: dict[str, Any] = {"image": inputs["image"], "model": str(inputs["model"]), "foreground": "none", **more}
    return prepare(SegmentConfig(out=out, core=128, region=region, **asked), 1, partial(tune, device="cpu"))


def computed(run: Run, *, fails: int | None = None) -> Run:
    worker, mask = TileWorker(), run.open_mask()
    for index in remaining(run):
        if index == fails:
            continue
        record_result(run, mask, worker.process(run.path, index, staged=False), 1)
    run.ledger.flush()
    stitch(run)
    return run


@pytest.fixture(scope="module")
def drawn(inputs: dict[str, Path]) -> Run:
    return computed(planned(inputs, inputs["folder"] / "drawn", str(inputs["polygons"]), probabilities=True))


@pytest.fixture(scope="module")
def whole(inputs: dict[str, Path]) -> Run:
    region = f"{TOP},{LEFT},{BOTTOM},{RIGHT}"
    return computed(planned(inputs, inputs["folder"] / "whole", region, probabilities=True))


def cut(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(INSIDE, labels, np.uint8(0))


def test_labels_are_those_of_the_bounds_inside_and_background_outside(drawn: Run, whole: Run) -> None:
    labels = labels_of(whole)
    assert set(np.unique(labels[~INSIDE])) == {0, 1, 2}, "there is something to cut off"
    np.testing.assert_array_equal(labels_of(drawn), cut(labels))
    states = drawn.ledger.fold()
    assert states.count(TileState.SKIPPED), "a tile that meets no polygon isn't computed"
    kept, beside = drawn.open_probabilities(read_only=True), whole.open_probabilities(read_only=True)
    assert kept is not None
    assert beside is not None
    everything = Box(0, 0, *INSIDE.shape)
    np.testing.assert_array_equal(kept.read(everything), np.where(INSIDE, beside.read(everything), 0))


def test_statistics_are_those_of_the_polygons(drawn: Run) -> None:
    with drawn.open_source() as source:
        export_run(drawn, source, "statistics")
    rows = {row["class"]: row for row in read_statistics(drawn.exports / "statistics.parquet")}
    labels, classes = labels_of(drawn), [item.name for item in drawn.classes]
    for label, name in enumerate(classes):
        pixels = int(((labels == label) & INSIDE).sum())
        assert rows[name]["pixels"] == pixels
        assert rows[name]["share_of_computed"] == pytest.approx(pixels / INSIDE.sum())
        assert rows[name]["share_of_foreground"] is None, "every tile was to be computed: nothing was told apart"
    assert rows[OUTSIDE_NAME]["pixels"] == (~INSIDE).sum()
    assert rows[SKIPPED_NAME]["pixels"] == 0
    assert sum(row["pixels"] for row in rows.values()) == labels.size
    shown = {row.name: row.pixels for row in Areas.of(drawn, drawn.ledger.fold()).rows}
    assert shown == {name: row["pixels"] for name, row in rows.items() if row["pixels"] or name in classes}
    assert OUTSIDE_NAME in render_report(drawn)


@pytest.mark.parametrize("failed", [False, True])
def test_a_tile_that_is_not_predicted_is_not_outside_too(failed: bool, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Its pixels count once, whether it failed or is to do."""
    run = planned(inputs, tmp_path / "run", str(inputs["polygons"]))
    index = remaining(run)[1]
    computed(run, fails=index)
    if failed:
        record_result(run, run.open_mask(), TileResult(index, None, 0, reason="on purpose"), 1)
        run.ledger.flush()
    tile = run.plan.tile(index).valid
    rows = {row.name: row.pixels for row in Areas.of(run, run.ledger.fold()).rows}
    assert rows["not predicted"] == tile.area
    elsewhere = ~INSIDE
    elsewhere[tile.slices] = False
    assert rows[OUTSIDE_NAME] == elsewhere.sum()
    assert sum(rows.values()) == INSIDE.size


def test_a_tile_is_cut_alike_when_it_is_computed_again(drawn: Run) -> None:
    worker, other = TileWorker(), shifted(drawn.plan)
    places = [(drawn.plan.core_px, tile.index) for tile in drawn.plan.tiles()]
    places += [(other.core_px, tile.index) for tile in other.tiles()]
    assert [worker.check(drawn.path, *each).differing for each in places] == [0] * len(places)


def test_the_run_keeps_its_polygons(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The file that they came from may go; what the run keeps of them may be lost, and is made again."""
    mine = tmp_path / "mine.geojson"
    mine.write_bytes(inputs["polygons"].read_bytes())
    run = computed(planned(inputs, tmp_path / "run", str(mine)))
    before = labels_of(run)
    mine.unlink()
    index = run.ledger.fold().indices(TileState.DONE).tolist()[0]
    run.open_mask().fill(run.plan.tile(index), 255)
    again = reopen(RerunConfig(run=run.path, tiles=((0, 0),)))
    TileWorker().process(again.path, index, staged=False)
    np.testing.assert_array_equal(labels_of(run), before)

    kept = tmp_path / "run" / "outline.json"
    written = kept.read_bytes()
    for lost in (b"", b"{}", b'{"edges_yxyx": [[[0, 0, 9, 9]]]}', written.replace(b"40.9", b"41.9")):
        kept.write_bytes(lost)
        with pytest.raises(RunError, match=r"polygons of the run's region .* same --region"):
            reopen(RerunConfig(run=run.path, tiles=((0, 0),)))
    kept.unlink()
    with pytest.raises(RunError, match="polygons of the run's region"):
        TileWorker().process(run.path, index, staged=False)
    planned(inputs, tmp_path / "run", str(inputs["polygons"]))
    assert kept.read_bytes() == written
    kept.write_bytes(b"rotten")
    planned(inputs, tmp_path / "run", str(inputs["polygons"]))
    assert kept.read_bytes() == written


@pytest.mark.parametrize("box", [Box(0, 0, 60, 60), Box(200, 200, 260, 330), Box(100, 100, 110, 110), Box(0, 0, 9, 9)])
def test_pixels_outside_are_counted_as_they_are_cut(box: Box) -> None:
    edges = [np.array([[*a[::-1], *b[::-1]] for a, b in zip(r, [*r[1:], r[0]], strict=True)]) for r in (RING, HOLE)]
    outline = Outline.of(Polygons([Polygon(1, np.concatenate(edges))]))
    inside = outline.cut(np.ones(box.shape, np.uint8), box)
    np.testing.assert_array_equal(inside, DRAWN[box.slices])
    assert outline.outside(box) == (inside == 0).sum()


def test_on_a_coarser_mask_the_polygons_are_in_its_pixels(inputs: dict[str, Path], drawn: Run, tmp_path: Path) -> None:
    half = OutputGrid((Fraction(1, 2), Fraction(1, 2)))
    run = finished_run(inputs["image"], tmp_path / "run", grid=half)
    image = run.card.image.model_copy(update={"view": drawn.card.image.view})
    run.card = run.card.model_copy(update={"image": image})
    (tmp_path / "run" / "outline.json").write_bytes((drawn.path / "outline.json").read_bytes())
    assert run.outline is not None
    bounds = np.array(run.outline.bounds)
    np.testing.assert_allclose(bounds, (np.array([40.9, 61.2, 470.8, 570.3]) - [TOP, LEFT, TOP, LEFT]) / 2)


def test_the_share_of_foreground_is_of_pixels_not_of_blocks() -> None:
    held = np.array([[True, False, True], [False, True, True]])
    found = Foreground(np.ones((2, 3), bool), (16, 16), "", held)
    expected = np.zeros((20, 40), bool)
    for row, col in zip(*np.nonzero(held), strict=True):
        expected[16 * row : 16 * row + 16, 16 * col : 16 * col + 16] = True
    assert found.share((20, 40)) == pytest.approx(expected.mean())
    inside = np.array([[True, True, False], [True, True, False]])
    expected[:, 32:] = False
    assert found.share((20, 40), inside) == pytest.approx(expected.mean())
    assert Foreground(None, (1, 1), "").share((20, 40)) is None


def test_foreground_that_was_told_apart_gives_classes_a_share_of_it(inputs: dict[str, Path], tmp_path: Path) -> None:
    given = tmp_path / "tissue.png"
    tissue = np.zeros((HEIGHT // 10, WIDTH // 10), np.uint8)
    tissue[:30] = 255
    Image.fromarray(tissue).save(given)
    run = computed(planned(inputs, tmp_path / "run", str(inputs["polygons"]), foreground=str(given)))
    rows = np.arange(len(INSIDE))
    planned_as = run.ledger.fold().last_event(PLANNED)
    assert planned_as is not None
    share = planned_as.facts["foreground share"]
    assert share == pytest.approx((INSIDE & (rows < 0.6 * len(rows))[:, np.newaxis]).mean(), rel=0.02), "of blocks"
    with run.open_source() as source:
        export_run(run, source, "statistics")
    for row in read_statistics(run.exports / "statistics.parquet"):
        expected = row["pixels"] / (share * INSIDE.size) if row["label"] in (1, 2) else None
        assert row["share_of_foreground"] == (None if expected is None else pytest.approx(expected))
    assert "Foreground by a coarse look" in render_report(run)
