"""Whole runs in this process: what the flow does, without Ray around the workers."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from cli import Cli, mask_files, write_tissue
from object_store import (
    BUCKET,
    SECRET,
    TOKEN,
    connected_to,
    environment_of,
    faulty_proxy,
    objects_below,
    place,
)
from third_party import Net
from torch import zeros
from torch.export import Dim, export, save

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.run.steps import export as export_pictures
from flows.run.steps import stitch
from flows.worker.result import TileResult
from flows.worker.staging_worker import StagingWorker
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.errors import ImageChangedError, PlaceError, RunError, SourceError, StorageError
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from tiling.runs.verification import check_pyramid, check_shards
from tiling.storage.object_path import ObjectPath
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
    stitch(run)
    export_pictures(run)
    run.remove_staged()
    return run


def record(run: Run, result: TileResult) -> None:
    state = TileState.FAILED if result.digest is None else TileState.DONE
    run.ledger.append(TileRecord(result.tile, state, 1, result.digest, result.reason))
