"""Whole runs in this process: what the flow does, without Ray around the workers."""

from __future__ import annotations

from functools import partial

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.run.steps import export as export_pictures
from flows.run.steps import find_objects, stitch
from flows.worker.result import TileResult
from flows.worker.staging_worker import StagingWorker
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from tiling.storage.place import Place


def opened(image: Place, out: Place, **options: object) -> Run:
    given = {"image": image, "out": out, "core": 128, "foreground": "none", "precision": "float32", **options}
    return prepare(SegmentConfig.model_validate(given), 1, partial(tune, device="cpu"))


def walk(image: Place, out: Place, **options: object) -> Run:
    """A whole run in this process: what the flow does, without Ray around the workers."""
    run = opened(image, out, **options)
    run.create_staged()
    stager, worker = StagingWorker(), TileWorker()
    for tile in run.plan.tiles():
        for result in stager.stage(run.path, [tile.index]):
            done = worker.process(run.path, tile.index, staged=True) if result.reason is None else result
            record(run, done)
    run.ledger.flush()
    state = stitch(run)
    find_objects(run, state)
    export_pictures(run, state=state)
    run.remove_staged()
    return run


def record(run: Run, result: TileResult) -> None:
    state = TileState.FAILED if result.digest is None else TileState.DONE
    run.ledger.append(TileRecord(result.tile, state, 1, result.digest, result.reason))
