"""The main flow: plan, stage, infer, stitch, export. Reads like a table of contents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import numpy as np
from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.config.archive import ArchiveConfig
from flows.config.deployed import allowed
from flows.config.run import RerunConfig, SegmentConfig, VerifyConfig, checked
from flows.errors import StoppedError
from flows.lifecycle.flow_states import finished, stoppable
from flows.lifecycle.stopping import stop_on_signals
from flows.pool.backlog import Backlog
from flows.pool.pool import AHEAD_PER_WORKER, Pool
from flows.reporting.bottleneck import StageTimes
from flows.reporting.escaping import markdown
from flows.reporting.logs import about, configure_logs
from flows.reporting.prefect_events import install, recorded
from flows.reporting.progress import enter
from flows.reporting.report import write_report
from flows.run.changed_image import drawn_of_one_image, expect_same_image, settled
from flows.run.exports import export_all
from flows.run.prepare import prepare
from flows.run.watch import RunWatch
from flows.worker.result import Ready, TileResult
from tiling.errors import ImageChangedError, PlanError, RunError
from tiling.export.export_run import mask_digest
from tiling.export.formats import NONE
from tiling.export.overlay import write_overlay
from tiling.export.verification import FOREGROUND, OVERLAY, REPORT, announce_drawn, is_as_drawn
from tiling.plan import Tile
from tiling.runs.ledger import INFERRING, STITCHED, TileRecord, TileState
from tiling.runs.mask import NOT_PREDICTED, Mask
from tiling.runs.run import Run
from tiling.selection.foreground import draw_skipped
from tiling.storage.picture import data_url
from tiling.storage.place import Place, lock_run

install()

begun_pool: ContextVar[Pool | None] = ContextVar("begun_pool", default=None)
"""A pool that is starting already: Ray, torch and Prefect's server load side by side, not one after another."""


SHOWN_PX = 720


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    run: Place
    tiles: int
    done: int
    skipped: int
    failed: dict[str, str]  # tile name to reason
    seconds: float
    megapixels_per_second: float
    seconds_per_stage: dict[str, float]  # of work, summed over all workers
    limit: str  # what limited it, in one sentence
    lacking: str = ""  # before the run is complete, in words
    remedy: str = ""  # what brings it

    @property
    def complete(self) -> bool:
        return not self.lacking

    def __str__(self) -> str:
        """In one sentence, with the command that mends what failed."""
        counts = f"{self.done} of {self.tiles} tiles computed, {self.skipped} skipped, {len(self.failed)} failed"
        return counts if self.complete else f"{counts}; {self.lacking}; {self.remedy}"


@flow(name="segment-image", validate_parameters=False)
@stoppable
def segment(config: SegmentConfig) -> Outcome:
    """Segment one image into a run folder; the same call again goes on where it was."""
    configure_logs()
    started, config = time.monotonic(), allowed(checked(SegmentConfig, config))
    Run.expect_room(config.out)  # before a lock is left in what is no run
    with lock_run(config.out), open_pool(config) as pool:
        run = plan(config, pool)
        todo = remaining(run)
        compute(run, pool, todo, staged=config.staging, keep=config.keep_staged)
        stitch(run)
        export(run, config.export)
        finish(run, keep_staged=config.keep_staged)
        show(run)
        return finished(outcome := summarise(run, started), str(outcome))


@flow(name="rerun-tiles", validate_parameters=False)
@stoppable
def rerun(config: RerunConfig) -> Outcome:
    """Compute single tiles of a run again; no other byte of the mask changes."""
    configure_logs()
    started, config = time.monotonic(), allowed(checked(RerunConfig, config))
    Run.open(config.run)  # before a lock is left in what is no run
    with lock_run(config.run), open_pool(config) as pool:
        run = reopen(config)
        todo = chosen(run, config)
        compute(run, pool, todo, staged=False)
        stitch(run)
        export(run, NONE)
        show(run)
        return finished(outcome := summarise(run, started), str(outcome))


def compute(run: Run, pool: Pool, todo: Sequence[int], *, staged: bool, keep: bool = False) -> None:
    """Stage and infer side by side; whatever ends inference ends staging too, which would wait for it for ever."""
    backlog = Backlog(limit=AHEAD_PER_WORKER * pool.size)
    staging = stage.submit(run, pool, todo, backlog, staged=staged, keep=keep)
    try:
        infer(run, pool, todo, backlog)
    finally:
        backlog.close()
    staging.result()


@task(cache_policy=NO_CACHE)
def plan(config: SegmentConfig, pool: Pool) -> Run:
    """Everything that can be refused is refused here."""
    enter("plan")
    return prepare(config, pool.size, pool.tune)


@task(cache_policy=NO_CACHE)
def stage(run: Run, pool: Pool, todo: Sequence[int], backlog: Backlog, *, staged: bool, keep: bool = False) -> None:
    """Hand tiles to inference, as chunks of the staged array or as places in the image."""
    if staged and todo:
        run.create_staged(keep=keep)
        with backlog:
            pool.stage(run.path, todo, backlog)
        return
    with backlog:
        for index in todo:
            if not backlog.reserve(1):
                break
            backlog.offer(Ready(run.path, TileResult(index, None, 0)))


@task(cache_policy=NO_CACHE)
def infer(run: Run, pool: Pool, todo: Sequence[int], backlog: Backlog) -> None:
    """Label tiles and write what became of each into the ledger."""
    if not todo:
        return
    watch = RunWatch(run, len(todo), pool, backlog)
    mask = run.open_mask()
    run.ledger.announce(INFERRING, {"todo": len(todo), "workers": pool.size})
    try:
        with about(run=run.path, slide=run.card.image.path), stop_on_signals() as stop:
            for ended in pool.infer(backlog, stop):
                if ended.error is not None:
                    raise ended.error
                write_down(run, mask, ended.result, ended.attempts)
                watch.add(ended.result)
    except ImageChangedError as error:
        run.ledger.flush()
        raise settled(run, todo, error) from error
    finally:
        run.ledger.flush()
    watch.end()
    run.ledger.announce("inferred", {"workers": pool.size, "stagers": pool.stagers, "seconds": watch.seconds})
    expect_same_image(run, todo)
    if stop.by is not None:
        raise StoppedError.by(stop.by)


def write_down(run: Run, mask: Mask, result: TileResult, attempts: int) -> None:
    """Put what became of a tile into the ledger; a failed one's pixels say that they are not predicted."""
    run.ledger.append(_record(result, attempts, run.ledger.now()))
    if result.digest is None:
        _leave_out(run, mask, run.plan.tile(result.tile))


@task(cache_policy=NO_CACHE)
def stitch(run: Run) -> None:
    """Close the mask: the pyramid over everything, or over what was written since it was last built."""
    enter("stitch")
    started, state = time.monotonic(), run.ledger.fold()
    fresh = [run.plan.tile(int(index)).valid for index in np.flatnonzero(state.unstitched)]
    images = [image for image in (run.open_mask(), run.open_probabilities()) if image is not None]
    for image in images:
        image.sweep()
    # Above a damaged tile nothing can be right, and nothing below it need be readable: it is built when that is mended.
    if state.damaged or (state.pyramid_stands and not fresh):
        return
    for image in images:
        image.build_pyramid(fresh if state.pyramid_stands else None)
    run.ledger.announce(STITCHED, {"tiles": len(fresh), "seconds": round(time.monotonic() - started, 3)})


@task(cache_policy=NO_CACHE)
def export(run: Run, formats: str = NONE) -> None:
    """Draw what a person looks at first, the mask over the image and which tiles were skipped; then write formats.

    Nothing is drawn of a mask with damaged tiles, whose bytes nobody vouches for.
    """
    enter("export")
    state, level = run.ledger.fold(), run.card.image.level
    if state.damaged:
        return
    failed = [run.plan.tile(index) for index in state.failed]
    skipped = [run.plan.tile(int(index)) for index in state.indices(TileState.SKIPPED)]
    with drawn_of_one_image(run) as source:
        write_overlay(run, source, failed)
        if not is_as_drawn(run, state, FOREGROUND):
            draw_skipped(source, level, run.plan, skipped, run.skipped_path)
        digest = mask_digest(run)
        announce_drawn(run, digest, OVERLAY, FOREGROUND)
        export_all(run, source, formats)
        write_report(run)
        announce_drawn(run, digest, REPORT)


@task(cache_policy=NO_CACHE)
def finish(run: Run, *, keep_staged: bool) -> None:
    """Give the staged tiles' space back."""
    if not keep_staged:
        run.remove_staged()


def show(run: Run) -> None:
    """Put the picture and the failed tiles into Prefect's pages."""
    if run.overlay_path.is_file():
        picture = data_url(run.overlay_path, SHOWN_PX)
        recorded(partial(create_image_artifact, picture, key="overlay", description=markdown(run.overlay_path)))
    state = run.ledger.fold()
    if state.failed:
        rows = [{"tile": run.plan.tile(i).name, "reason": markdown(r.reason or "")} for i, r in state.failed.items()]
        told = f"Failed tiles of {markdown(run.path.name)}"
        recorded(partial(create_table_artifact, key="failed-tiles", table=rows, description=told))


def open_pool(config: SegmentConfig | RerunConfig | VerifyConfig | ArchiveConfig) -> Pool:
    """The pool that the command line began to start, or a new one."""
    return begun_pool.get() or Pool(config.workers, config.ray_address, device=config.device)


def remaining(run: Run) -> list[int]:
    """Tiles that the ledger doesn't hold as done or skipped, in the plan's order."""
    return run.ledger.fold().indices(TileState.PENDING, TileState.FAILED, TileState.DAMAGED).tolist()


@task(cache_policy=NO_CACHE)
def reopen(config: RerunConfig | VerifyConfig) -> Run:
    """Open a run whose image is still the one that it began with.

    Raises:
        RunError: the image's content has changed, so that a new tile wouldn't fit its neighbours; or the polygons of
            the run's region are lost.
    """
    run = Run.open(config.run)
    _ = run.outline  # refused where it is lost
    with run.open_source() as source:
        if source.fingerprint() != run.card.image.fingerprint:
            raise RunError(
                f"image {source.path} has changed since {run.path} began: a tile of the new image wouldn't fit its "
                f"neighbours; restore the image, or segment it into another --out"
            )
    return run


def chosen(run: Run, config: RerunConfig) -> list[int]:
    """The tiles that a rerun is about.

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


def summarise(run: Run, started: float) -> Outcome:
    """Fold the ledger into what the caller tells the person."""
    state = run.ledger.fold()
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
        lacking=state.lacking,
        remedy=state.remedy(run.path),
    )


def _leave_out(run: Run, mask: Mask, tile: Tile) -> None:
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
    )
