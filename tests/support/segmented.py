"""Whole runs in this process: every tile, the pyramid, no Ray and no server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.run.steps import record_result, remaining, stitch
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.runs.run import Run


def segmented(image: Path, out: Path, model: object, core: int, **options: object) -> Run:
    """A whole run, in this process."""
    asked = {"image": image, "out": out, "model": str(model), "core": core, "precision": "float32", **options}
    run = prepare(SegmentConfig.model_validate(asked), 1, partial(tune, device="cpu"))
    compute(run, remaining(run))
    return run


def compute(run: Run, tiles: Sequence[int]) -> None:
    worker, mask = TileWorker(), run.open_mask()
    for index in tiles:
        record_result(run, mask, worker.process(run.path, index, staged=False), 1)
    run.ledger.flush()
    stitch(run)
