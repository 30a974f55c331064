"""Steps of one run after its plan: plain functions, which flows wrap as tasks and a night calls as they are."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from flows.config.run import RerunConfig, VerifyConfig
from flows.reporting.bottleneck import StageTimes
from flows.reporting.findings import findings
from flows.reporting.progress import begin_stage
from flows.reporting.report import write_report
from flows.run.exports import export_all, threads_of
from flows.run.objects import rule_of
from flows.run.pictures import Pictures, drawing
from flows.worker.result import TileResult
from tiling.errors import PlanError, RunError
from tiling.export.formats import NONE
from tiling.export.verification import REPORT, announce_drawn, seals_of
from tiling.objects.blocks import BlockMap
from tiling.objects.build import build_objects
from tiling.objects.record import asked_objects, built_objects
from tiling.objects.write_labels import write_labels
from tiling.plan import Tile
from tiling.runs.ledger import STITCHED, LedgerState, TileRecord, TileState
from tiling.runs.mask import NOT_PREDICTED, Mask
from tiling.runs.mask_digest import mask_digest
from tiling.runs.reduced_levels import ReducedLevels
from tiling.runs.run import Run
from tiling.runs.walk import in_order
from tiling.storage.place import Place
from tiling.storage.task_map import TaskMap

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a run."""

    run: Place
    tiles: int
    done: int
    skipped: int
    failed: dict[str, str]  # tile name to reason
    seconds: float
    megapixels_per_second: float
    seconds_per_stage: dict[str, float]  # of work, summed over all workers
    limit: str  # what limited it, in one sentence
    missing: str = ""  # before the run is complete, in words
    remedy: str = ""  # what brings it
    found: tuple[str, ...] = ()  # of each class, in a line

    @property
    def complete(self) -> bool:
        return not self.missing

    def __str__(self) -> str:
        """In one sentence, with the command that repairs what failed."""
        counts = f"{self.done} of {self.tiles} tiles computed, {self.skipped} skipped, {len(self.failed)} failed"
        return counts if self.complete else f"{counts}; {self.missing}; {self.remedy}"


def record_result(
    run: Run, mask: Mask, result: TileResult, attempts: int, reduced: ReducedLevels | None = None
) -> None:
    """Record the outcome of a tile in the ledger; a failed one's pixels say that they are not predicted.

    `reduced` takes in what the tile's worker has made of the mask's coarser levels.
    """
    run.ledger.append(_record(result, attempts, run.ledger.now()))
    if result.digest is None:
        _mark_not_predicted(run, mask, run.plan.tile(result.tile))
    elif reduced is not None and result.reduced:
        reduced.add(run.plan.tile(result.tile), result.reduced)


def stitch(run: Run, state: LedgerState | None = None, reduced: ReducedLevels | None = None) -> LedgerState:
    """Close the mask: the pyramid over everything, or over what was written since it was last built.

    `state` is the folded ledger, None folds it; returns it with what was stitched. `reduced` is what this driver has
    joined of the pyramid already while it recorded tiles.
    """
    begin_stage("stitch")
    started, state = time.monotonic(), run.ledger.fold() if state is None else state
    fresh = [run.plan.tile(int(index)).valid for index in np.flatnonzero(state.unstitched)]
    if reduced is not None:
        reduced.close()
    images = [image for image in (run.open_mask(), run.open_probabilities()) if image is not None]
    for image in images:
        image.sweep()
    # Above a damaged tile nothing can be right, and nothing below it need be readable: it is built after the repair.
    if state.damaged or (state.pyramid_stands and not fresh):
        return state
    for image in images:
        changed = fresh if state.pyramid_stands else None
        if reduced is None or not isinstance(image, Mask):
            image.build_pyramid(changed)
        else:
            image.build_pyramid(changed, reduced.is_written)
    facts = {"tiles": len(fresh), "seconds": round(time.monotonic() - started, 3)}
    state.add(run.ledger.announce(STITCHED, facts))
    return state


def find_objects(run: Run, state: LedgerState, *, trust_code: bool = False, each: BlockMap | None = None) -> None:
    """Number the objects of a closed mask where they are asked for, and those on disk are not of it as it is.

    Those of a user's own rule need leave to run its code; without it the run is left without, as `verify` says. Then
    they are written into their image, where that is asked for. `each` works on blocks, threads of this process where
    it is None.
    """
    _number(run, state, trust_code=trust_code, each=each)
    write_labels(run, state)


def _number(run: Run, state: LedgerState, *, trust_code: bool, each: BlockMap | None) -> None:
    spec = asked_objects(state)
    if spec is None or not state.is_closed or built_objects(run, state) is not None:
        return
    if spec.is_own and not trust_code:
        logger.warning(
            "the objects of %s are by %s, which nobody gave leave to run: they are not built; run the segment command "
            "of the run again, with --trust-code",
            run.path,
            spec.rule,
        )
        return
    begin_stage("objects")
    build_objects(run, state, spec, rule_of(spec, trust_code=trust_code), threads=threads_of(None), each=each)


def export(
    run: Run,
    formats: str = NONE,
    state: LedgerState | None = None,
    tasks: TaskMap | None = None,
    pictures: Pictures | None = None,
) -> None:
    """Write formats, and the report once pictures are drawn; neither of a mask with damaged tiles.

    `state` is the folded ledger, which takes in what is exported; None folds it. `tasks` write formats in other
    processes. `pictures` are being drawn; None begins with them.
    """
    begin_stage("export")
    state = folded(run) if state is None else state
    with drawing(run, state, tasks) if pictures is None else nullcontext(pictures) as begun:
        if begun is None:
            return
        export_all(run, begun.source, formats, state, tasks)
        write_report(run, state, begun.source, begun.drawn.result().encoded)
        announce_drawn(run, mask_digest(run, state), seals_of(run, REPORT), soon=pictures is not None)


def finish(run: Run, *, keep_staged: bool) -> None:
    """Give the staged tiles' space back."""
    if not keep_staged:
        run.remove_staged()


def folded(run: Run) -> LedgerState:
    """The run's folded ledger with all that the stages after inference ask for."""
    return run.ledger.fold(held=True)


def remaining(run: Run, state: LedgerState | None = None, strip_px: int | None = None) -> list[int]:
    """Tiles that the ledger doesn't hold as done or skipped, in the order of reading (`tiling.runs.walk`)."""
    state = run.ledger.fold() if state is None else state
    return in_order(run.plan, state.indices(TileState.PENDING, TileState.FAILED, TileState.DAMAGED), strip_px)


def reopen(config: RerunConfig | VerifyConfig) -> Run:
    """Open a run whose image is still the one that it began with.

    Raises:
        RunError: the image's content has changed, so that a new tile wouldn't fit its neighbours; or the polygons of
            the run's region are lost.
    """
    run = Run.open(config.run)
    run.expect_outline()
    with run.open_source() as source:
        if source.fingerprint() != run.card.image.fingerprint:
            raise RunError(
                f"image {source.path} has changed since {run.path} began: a tile of the new image wouldn't fit its "
                f"neighbours; restore the image, or segment it into another --out"
            )
    return run


def chosen_tiles(run: Run, config: RerunConfig) -> list[int]:
    """The tiles that a rerun computes.

    Raises:
        PlanError: no tile was named, or one that isn't in the plan.
    """
    named = {run.plan.at(row, col).index for row, col in config.tiles}
    state = run.ledger.fold()
    failed = set(state.failed) if config.failed else set[int]()
    damaged = set(state.damaged) if config.damaged else set[int]()
    if not (named or config.failed or config.damaged):
        raise PlanError("no tile was named; give --tile ROW,COL once or more, --failed, or --damaged")
    return sorted(named | failed | damaged)


def summarise(run: Run, started: float, state: LedgerState | None = None) -> Outcome:
    """Make the run's outcome of its folded ledger."""
    state = run.ledger.fold() if state is None else state
    times = StageTimes.of(state)
    return Outcome(
        run=run.path,
        tiles=run.plan.count,
        done=state.count(TileState.DONE),
        skipped=state.count(TileState.SKIPPED),
        failed={run.plan.tile(index).name: record.reason or "" for index, record in state.failed.items()},
        seconds=time.monotonic() - started,
        megapixels_per_second=state.pixels / 1e6 / times.wall if times.wall > 0 else 0.0,
        seconds_per_stage=times.seconds,
        limit=times.sentence(),
        missing=state.missing,
        remedy=state.remedy(run.path),
        found=findings(run, state),
    )


def _mark_not_predicted(run: Run, mask: Mask, tile: Tile) -> None:
    """A failed tile's pixels say that they are not predicted, whatever an earlier attempt has written."""
    if mask.holds(tile):
        run.ledger.flush()  # before its labels go: what the ledger calls done must be there, also after a kill
    mask.fill(tile, NOT_PREDICTED)
    probabilities = run.open_probabilities()
    if probabilities is not None:
        probabilities.clear(tile)


def _record(result: TileResult, attempts: int, now: float) -> TileRecord:
    return TileRecord(
        tile=result.tile,
        state=TileState.DONE if result.digest is not None else TileState.FAILED,
        attempts=attempts,
        digest=result.digest,
        probabilities=result.probabilities,
        reason=result.reason,
        worker=result.worker,
        seconds={stage: round(value, 6) for stage, value in result.seconds.items()},
        pixels=result.pixels,
        time=now,
        empty=result.empty,
        counts=result.counts,
    )
