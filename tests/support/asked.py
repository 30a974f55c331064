"""Helpers: what `overtile verify` answers and `overtile segment` repairs, without Ray and Prefect around it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.run.steps import export, folded, record_result, remaining, stitch
from flows.run.verification import check_every_shard, check_files, check_pyramids, mark
from flows.run.verification_report import VerificationReport, report
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.runs.run import Run


def verdict_of(run: Run) -> VerificationReport:
    """All that verification looks at, but what it computes again."""
    if lost := run.lost_metadata():
        return report(run, folded(run), lost=lost, started=0.0)
    state = folded(run)
    findings = check_every_shard(run, state)
    mark(run, state, findings)
    pyramid = check_pyramids(run, state)
    return report(run, state, findings, pyramid, exports=check_files(run, state), started=0.0)


def answer_of(run: Run) -> dict[str, Any]:
    """What is said, without how long it took."""
    verdict = verdict_of(run)
    return {**asdict(verdict), "seconds": 0, "sound": verdict.is_sound}


def open_or_resume(image: Path, model: Path, folder: Path, *, formats: str = "auto", probabilities: bool = True) -> Run:
    asked = {"export": formats, "probabilities": probabilities, "core": 128, "foreground": "none"}
    config = SegmentConfig.model_validate({"image": image, "out": folder, "model": str(model), **asked})
    return prepare(config, 1, partial(tune, device="cpu"))


def compute(run: Run, worker: TileWorker) -> None:
    """Tiles that are to do or to repair, each in a segment of its own."""
    for index in remaining(run):
        record_result(run, run.open_mask(), worker.process(run.path, index, staged=False), 1)
        run.ledger.flush()


def close(run: Run) -> None:
    stitch(run)
    export(run)
