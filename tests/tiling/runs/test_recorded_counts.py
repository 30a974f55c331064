"""Counts of pixels that come with tiles: those of the mask itself, and none where the ledger can't say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from cli import write_tissue
from finished import finished_run

from flows.config.run import SegmentConfig
from flows.reporting.areas import Areas
from flows.run.prepare import prepare
from flows.run.steps import folded, record_result, remaining, stitch
from flows.worker.result import TileResult
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.runs.counts import count_labels, recorded_counts
from tiling.runs.label_counts import tile_counts
from tiling.runs.ledger import MOST_LABELS_COUNTED, TileRecord, TileState
from tiling.runs.reduced_levels import ReducedLevels
from tiling.runs.run import Run


def counted(run: Run) -> list[int]:
    return count_labels(run.open_mask(read_only=True))[0].tolist()


def test_a_run_is_counted_and_reduced_tile_by_tile(tmp_path: Path) -> None:
    asked = {"image": write_tissue(tmp_path / "tissue.tif", 520, 560), "out": tmp_path / "run", "core": 512}
    asked |= {"model": "nuclei-small", "precision": "float32", "foreground": "none"}
    config = SegmentConfig.model_validate(asked)
    run = prepare(config, 1, partial(tune, device="cpu"))
    reduced, worker, mask = ReducedLevels.of(run, run.ledger.fold()), TileWorker(), run.open_mask()
    assert reduced is not None
    for index in remaining(run):
        record_result(run, mask, worker.process(run.path, index, staged=False), 1, reduced)
    run.ledger.flush()
    state = stitch(run, folded(run), reduced)
    assert [reduced.is_written(1, box) for box in mask.pyramid.shards(1)] == [True]
    assert all(mask.pyramid.shows_below(1, box) for box in mask.pyramid.shards(1))
    found = recorded_counts(run.plan, state)
    assert found is not None
    assert found.tolist() == counted(run)
    assert ReducedLevels.of(run, state) is None  # whose pyramid stands: reruns build what they change


def counted_run(folder: Path) -> Run:
    """A finished run whose tiles are done, failed and skipped, and counted."""
    run = finished_run(write_tissue(folder / "tissue.tif", 700, 600), folder / "run", failed={(1, 1)}, skipped={(0, 2)})
    mask, state = run.open_mask(), run.ledger.fold()
    for index in state.indices(TileState.DONE).tolist():
        labels = mask.read(run.plan.tile(index).valid)
        run.ledger.append(TileRecord(index, TileState.DONE, 1, "00" * 16, counts=tile_counts(labels)))
    run.ledger.flush()
    stitch(run)
    return run


def test_failed_and_skipped_tiles_count_as_what_their_pixels_say(tmp_path: Path) -> None:
    run = counted_run(tmp_path)
    found = recorded_counts(run.plan, folded(run))
    assert found is not None
    assert found.tolist() == counted(run)
    assert found[255] == run.plan.at(1, 1).valid.area


def test_a_report_by_the_ledger_is_that_by_the_mask(tmp_path: Path) -> None:
    run = counted_run(tmp_path)
    assert Areas.of(run, folded(run)) == Areas.of(run, run.ledger.fold())  # which folds no counts


def test_a_tile_that_is_computed_again_counts_once(tmp_path: Path) -> None:
    run = counted_run(tmp_path)
    tile = run.plan.at(1, 1)
    area = tile.valid.area
    for counts in ({0: area - 5, 2: 5}, {0: area - 7, 1: 7}):
        record_result(run, run.open_mask(), TileResult(tile.index, "00" * 16, area, counts=counts), 1)
    run.ledger.flush()
    labels = np.zeros(tile.valid.shape, np.uint8)
    labels[0, :7] = 1
    run.open_mask().write(tile, labels)
    found = recorded_counts(run.plan, stitch(run, folded(run)))
    assert found is not None
    assert found.tolist() == counted(run)


def test_the_mask_is_counted_where_the_ledger_cannot_say(tmp_path: Path) -> None:
    run = counted_run(tmp_path)
    done = TileRecord(0, TileState.DONE, 1, "00" * 16, counts={0: 128**2})
    for record in (
        replace(done, counts=None),  # by an earlier version
        replace(done, counts={0: 5}),  # other pixels than the tile has
        replace(done, state=TileState.DAMAGED, digest=None, counts=None),
    ):
        run.ledger.append(record)
        run.ledger.flush()
        assert recorded_counts(run.plan, folded(run)) is None
    run.ledger.append(done)
    run.ledger.flush()
    assert recorded_counts(run.plan, folded(run)) is not None


def test_very_many_labels_are_not_counted_tile_by_tile(tmp_path: Path) -> None:
    labels = np.arange(128**2, dtype=np.uint32).astype(np.uint8).reshape(128, 128)
    assert tile_counts(labels) is None
    assert tile_counts(labels % MOST_LABELS_COUNTED) == dict.fromkeys(range(MOST_LABELS_COUNTED), 512)
    run = counted_run(tmp_path)
    many = dict.fromkeys(range(4, 4 + MOST_LABELS_COUNTED), 512)
    run.ledger.append(TileRecord(0, TileState.DONE, 1, "00" * 16, counts=many))
    run.ledger.flush()
    assert folded(run).counts is None  # memory grows with labels and tiles
    assert recorded_counts(run.plan, folded(run)) is None


def test_counts_stand_in_a_tiles_line(tmp_path: Path) -> None:
    run = counted_run(tmp_path)
    lines = [json.loads(line) for path in sorted((tmp_path / "run" / "ledger").iterdir()) for line in path.open()]
    counts = [line["counts"] for line in lines if "counts" in line]
    assert len(counts) == run.plan.count - 2
    assert all(sum(each.values()) <= 128**2 for each in counts)
