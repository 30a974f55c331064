"""Pixels without data have no class in any output, and change no label around them by what they happen to hold."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from finished import labels_of
from no_data_images import KINDS, as_alpha, as_mask, as_nodata, collar, scene, write_map
from numpy.typing import NDArray
from rasterio.enums import Resampling
from segmented import segmented
from tiny import save_tiny

from flows.config.run import SegmentConfig
from flows.reporting.report import render_report
from flows.run.prepare import prepare
from flows.run.steps import record_result, remaining, stitch
from flows.run.verification import mark
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.export.export_run import export_run
from tiling.export.statistics import read_statistics
from tiling.runs.ledger import TileState
from tiling.runs.run import Run
from tiling.runs.uncomputed import UncomputedArea
from tiling.runs.verification import check_shards

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture
def cases() -> Path:
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not there")
    return CASES


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.mark.parametrize("name", ["b05_nodata255", "b06_mask", "b06_alpha"])
def test_no_class_without_data_whatever_the_core(name: str, cases: Path, tmp_path: Path) -> None:
    with rasterio.open(cases / f"{name}.tif") as file:
        held = file.dataset_mask() > 0
    runs = [segmented(cases / f"{name}.tif", tmp_path / str(core), cases / "models/rgb", core) for core in (64, 256)]
    first, second = (labels_of(run) for run in runs)
    assert np.array_equal(first, second)
    assert np.array_equal(first == 255, ~held)
    rows = statistics_of(runs[0])
    assert rows["r"]["area_km2"] * 1e6 == pytest.approx(625)
    assert rows["no data"]["pixels"] == np.count_nonzero(~held)
    assert rows["not predicted"]["pixels"] == 0


def test_values_that_are_no_numbers_fail_no_tile_and_poison_nothing(cases: Path, tmp_path: Path) -> None:
    image = cases / "h01_nan.tif"
    pixels = tifffile.imread(image)
    labels = [labels_of(segmented(image, tmp_path / str(core), cases / "models/mean7", core)) for core in (64, 128)]
    assert np.array_equal(labels[0], labels[1])
    assert np.array_equal(labels[0] == 255, np.isnan(pixels))
    assert (labels[0][~np.isnan(pixels)] == 1).all()


@pytest.mark.parametrize("name", ["b07_float_nodata_short", "b07_float_nodata"])
def test_a_shortened_value_is_matched_and_left_out_of_percentiles(name: str, cases: Path, tmp_path: Path) -> None:
    run = segmented(cases / f"{name}.tif", tmp_path / "run", cases / "models/onef", 64, normalise="percentiles:1,99")
    view = run.card.image.view
    assert view is not None
    assert view.stretch is not None
    assert (view.stretch.low, view.stretch.high) == ((0.5,), (2.0,))
    with rasterio.open(cases / f"{name}.tif") as file:
        held = (file.dataset_mask() > 0) & np.isfinite(file.read(1))  # GDAL's mask knows of no NaN
    labels = labels_of(run)
    assert np.array_equal(labels == 255, ~held)
    assert np.count_nonzero(labels == 1) == 3600


@pytest.mark.parametrize("kind", KINDS)
def test_labels_depend_on_neither_the_core_nor_what_stands_where_no_data_is(
    kind: str, tiny: Path, tmp_path: Path
) -> None:
    held, found = collar(), list[NDArray[np.uint8]]()
    for garbage, core in ((0, 48), (255, 128)):
        image = KINDS[kind](tmp_path, scene(), held, garbage)
        found.append(labels_of(segmented(image, tmp_path / str(core), tiny, core)))
    assert all(np.array_equal(each, found[0]) for each in found)
    assert np.array_equal(found[0] == 255, ~held)
    assert len(np.unique(found[0])) == 4


def test_statistics_report_and_exports_tell_no_data_from_what_failed(tiny: Path, tmp_path: Path) -> None:
    held = collar()
    image = as_nodata(tmp_path, scene(), held, 0)
    run = segmented(image, tmp_path / "run", tiny, 64)
    labels = labels_of(run)
    rows = statistics_of(run)
    assert rows["no data"]["pixels"] == np.count_nonzero(~held)
    assert rows["not predicted"]["pixels"] == 0
    assert sum(row["pixels"] for row in rows.values()) == labels.size
    with rasterio.open(run.exports / "mask.tif") as cog:
        assert cog.nodata == 255
        assert np.array_equal(cog.read(1) == 255, ~held)
    with rasterio.open(image) as file:
        assert np.array_equal(file.dataset_mask() > 0, held)
    assert b"not predicted" not in (run.exports / "objects.geojson").read_bytes()
    page = render_report(run)
    assert "No data:" in page
    assert "within its halo" in page
    # A failed tile, and no data beside it.
    record_result(run, run.open_mask(), replace_result(run, 0), 1)
    run.ledger.flush()
    stitch(run)
    rows, area = statistics_of(run), run.plan.tile(0).valid.area
    assert rows["not predicted"]["pixels"] == area
    assert rows["no data"]["pixels"] == np.count_nonzero(~held) - np.count_nonzero(~held[run.plan.tile(0).valid.slices])
    assert b"not predicted" in (run.exports / "objects.geojson").read_bytes()


def replace_result(run: Run, index: int) -> Any:
    """A worker's result for a tile that failed."""
    result = TileWorker().process(run.path, index, staged=False)
    return replace(result, digest=None, reason="it failed on purpose", empty=type(result.empty)())


def statistics_of(run: Run) -> dict[str, dict[str, Any]]:
    export_here(run)
    return {row["class"]: row for row in read_statistics(run.exports / "statistics.parquet")}


def export_here(run: Run) -> None:
    with run.open_source() as source:
        export_run(run, source, "statistics,cog,geojson")


def test_what_is_near_no_data_is_counted_the_same_for_any_core(tiny: Path, tmp_path: Path) -> None:
    held = np.ones((98, 110), np.bool_)
    held[49, 61] = False
    image = as_alpha(tmp_path, scene(), held, 9)
    counts: set[int] = set()
    for core in (32, 256):
        run = segmented(image, tmp_path / str(core), tiny, core)
        counts.add(UncomputedArea.of(run, run.ledger.fold()).near)
        halo = run.plan.halo
    assert counts == {(halo.top + halo.bottom + 1) * (halo.left + halo.right + 1) - 1}


def test_a_skipped_tile_is_verified_and_put_back_with_its_no_data(tiny: Path, tmp_path: Path) -> None:
    held = collar()
    image = as_nodata(tmp_path, scene(), held, 0)
    region = tmp_path / "roi.geojson"
    corners = [[500_025, 5_499_995], [500_050, 5_499_985], [500_040, 5_499_960], [500_012, 5_499_957]]
    ring = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    region.write_text(json.dumps({"type": "Feature", "geometry": ring, "properties": {}}))
    run = segmented(image, tmp_path / "run", tiny, 16, region=str(region))
    state = run.ledger.fold()
    view = run.card.image.view
    assert view is not None
    assert view.region is not None
    y0, x0, y1, x1 = view.region
    labels = labels_of(run)
    assert np.array_equal(labels == 255, ~held[y0:y1, x0:x1])
    rows = statistics_of(run)
    assert sum(row["pixels"] for row in rows.values()) == labels.size
    assert rows["no data"]["pixels"] == np.count_nonzero(labels == 255)
    assert rows["class 0"]["pixels"] + rows["skipped as empty"]["pixels"] + rows["outside the polygons"][
        "pixels"
    ] == np.count_nonzero(labels == 0)
    assert all(finding.fault is None for finding in check_shards(run))
    skipped = state.indices(TileState.SKIPPED)
    mixed = [i for i in skipped if 0 < state.empty_of(int(i)).no_data < run.plan.tile(int(i)).valid.area]
    for index in [*mixed[:2], *skipped[:1]]:
        run.open_mask().fill(run.plan.tile(int(index)), 1)
    findings = [*check_shards(run)]
    assert sum(finding.fault is not None for finding in findings) == len({*mixed[:2], *skipped[:1]})
    mark(run, run.ledger.fold(), findings)
    assert np.array_equal(labels_of(run), labels)


def test_a_coarse_view_that_takes_one_pixel_of_many_loses_no_data(tiny: Path, tmp_path: Path) -> None:
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[300:303, 77:80] = 90
    image = write_map(tmp_path / "few.tif", pixels, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(image, "r+") as file:
        file.build_overviews([16], Resampling.nearest)
    for core in (64, 256):
        run = segmented(image, tmp_path / str(core), tiny, core)
        assert np.array_equal(labels_of(run) != 255, pixels.any(-1))


def test_probabilities_are_zero_without_data(tiny: Path, tmp_path: Path) -> None:
    held = collar()
    run = segmented(as_mask(tmp_path, scene(), held, 7), tmp_path / "run", tiny, 64, probabilities=True)
    kept = run.open_probabilities()
    assert kept is not None
    found = np.asarray(kept.pyramid.levels[0][:])
    assert not found[:, ~held].any()
    assert found[:, held].max(axis=0).min() > 0
    assert all(finding.fault is None for finding in check_shards(run))


def test_staged_tiles_give_the_same(tiny: Path, tmp_path: Path) -> None:
    from flows.worker.staging_worker import StagingWorker

    held = collar()
    image = as_nodata(tmp_path, scene(), held, 0)
    direct = segmented(image, tmp_path / "direct", tiny, 64)
    asked = {"image": image, "out": tmp_path / "staged", "model": str(tiny), "core": 64, "precision": "float32"}
    run = prepare(SegmentConfig.model_validate(asked), 1, partial(tune, device="cpu"))
    run.create_staged()
    todo, worker, mask = remaining(run), TileWorker(), run.open_mask()
    StagingWorker().stage(run.path, todo)
    for index in todo:
        record_result(run, mask, worker.process(run.path, index, staged=True), 1)
    run.ledger.flush()
    assert np.array_equal(labels_of(run), labels_of(direct))


def test_an_image_that_holds_data_everywhere_is_read_as_ever(tiny: Path, tmp_path: Path) -> None:
    run = segmented(write_map(tmp_path / "whole.tif", scene(), nodata=None), tmp_path / "run", tiny, 64)
    assert run.card.image.no_data is None
    assert run.fill is None
    with run.open_source() as source:
        assert not source.may_lack_data
    assert "no data" not in statistics_of(run)


def test_an_earlier_card_is_read_and_its_difference_named(tiny: Path, tmp_path: Path) -> None:
    run = segmented(as_nodata(tmp_path, scene(), collar(), 0), tmp_path / "run", tiny, 64)
    before = run.card.model_copy(update={"image": run.card.image.model_copy(update={"no_data": None})})
    text = before.model_dump_json().replace('"no_data":null,', "")
    assert "no_data" not in text
    assert type(before).model_validate_json(text) == before
    assert [line.partition(":")[0] for line in before.differences(run.card)] == ["no data"]


def test_resampled_pixels_are_made_of_data_alone(tiny: Path, tmp_path: Path) -> None:
    held = collar()
    for kind, write in KINDS.items():
        found: list[NDArray[np.uint8]] = []
        for garbage, core in ((0, 32), (255, 64)):
            image, out = write(tmp_path, scene(), held, garbage), tmp_path / f"{kind}-{core}"
            found.append(labels_of(segmented(image, out, tiny, core, image_mpp=0.5, mpp=1.0)))
        assert all(np.array_equal(each, found[0]) for each in found), kind
        shown = found[0] != 255
        whole = held.reshape(49, 2, 55, 2)
        assert shown[whole.all((1, 3))].mean() > 0.95, kind
        assert not shown[~whole.any((1, 3))].any(), kind
