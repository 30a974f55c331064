"""The main flow: plan, stage, infer, stitch, find objects, export. Reads like a table of contents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.config.base import checked
from flows.config.deployed import allowed
from flows.config.run import SegmentConfig
from flows.lifecycle.flow_states import finished, stoppable
from flows.lifecycle.stopping import stop_on_signals, stopped_by
from flows.pool.backlog import Backlog
from flows.pool.open import open_pool
from flows.pool.pool import AHEAD_PER_WORKER, UNSTAGED_PER_WORKER, Pool
from flows.reporting.escaping import markdown
from flows.reporting.logs import about, configure_logs
from flows.reporting.prefect_events import recorded_by_the_end
from flows.reporting.prefect_names import artifact_key, name_flow_run
from flows.reporting.progress import begin_stage
from flows.run import steps
from flows.run.changed_image import expect_same_image, settled
from flows.run.pictures import SMALL_PX, Pictures, SeenLater, drawing, seen
from flows.run.prepare import Prepared, prepared
from flows.run.steps import Outcome, folded, record_result, remaining, summarise
from flows.run.watch import RunWatch
from tiling.errors import ImageChangedError
from tiling.runs.ledger import INFERRING, LedgerState
from tiling.runs.reduced_levels import ReducedLevels
from tiling.runs.run import Run
from tiling.storage.picture import data_url
from tiling.storage.place import lock_run

stitch = task(cache_policy=NO_CACHE)(steps.stitch)
find_objects = task(cache_policy=NO_CACHE)(steps.find_objects)
export = task(cache_policy=NO_CACHE)(steps.export)
finish = task(cache_policy=NO_CACHE)(steps.finish)


@flow(name="segment-image", validate_parameters=False)
@stoppable
def segment(config: SegmentConfig) -> Outcome:
    """Segment one image into a run folder; the same call resumes."""
    configure_logs()
    started, config = time.monotonic(), allowed(checked(SegmentConfig, config))
    name_flow_run(f"{config.image.name} → {config.out.name}")
    Run.expect_room(config.out)  # before a lock is left in what is no run
    with lock_run(config.out), open_pool(config) as pool:
        planned = plan(config, pool)
        run, todo = planned.run, remaining(planned.run, planned.state, planned.strip_px)
        reduced = ReducedLevels.of(run, planned.state)
        view = compute(run, pool, todo, staged=config.staging, keep=config.keep_staged, reduced=reduced)
        state = stitch(run, folded(run), reduced)
        finishing = finish.submit(run, keep_staged=config.keep_staged)
        tasks = pool.tasks.of_mask(run.plan.mask.area)
        with drawing(run, state, tasks or pool.beside, view, small=True) as pictures:
            show(run, state, pictures)
            find_objects(run, state, trust_code=config.trust_code, each=pool.on_blocks)
            export(run, config.export, state, tasks, pictures)
        finishing.result()
        return finished(outcome := summarise(run, started, state), str(outcome))


def compute(
    run: Run,
    pool: Pool,
    todo: Sequence[int],
    *,
    staged: bool,
    keep: bool = False,
    reduced: ReducedLevels | None = None,
) -> SeenLater | None:
    """Stage and infer side by side; whatever ends inference ends staging too, which would wait for it for ever.

    Returns what staging has begun of the pictures.

    Nothing writes reduced levels any more once this has ended, and whoever holds the run's lock releases it.
    """
    backlog = Backlog(limit=(AHEAD_PER_WORKER if staged else UNSTAGED_PER_WORKER) * pool.size)
    staging = stage.submit(run, pool, todo, backlog, staged=staged, keep=keep)
    try:
        infer(run, pool, todo, backlog, reduced)
    finally:
        backlog.close()
        if reduced is not None:
            reduced.close()
    return staging.result()


@task(cache_policy=NO_CACHE)
def plan(config: SegmentConfig, pool: Pool) -> Prepared:
    """Everything that can be refused is refused here."""
    begin_stage("plan")
    return prepared(config, pool.size, pool.tune, tasks=pool.elsewhere)


@task(cache_policy=NO_CACHE)
def stage(
    run: Run, pool: Pool, todo: Sequence[int], backlog: Backlog, *, staged: bool, keep: bool = False
) -> SeenLater | None:
    """Hand tiles to inference, as chunks of the staged array or as places in the image.

    Whoever has staged them looks at the image for its pictures next, while inference goes on.
    """
    if staged and todo:
        run.create_staged(keep=keep)
        with backlog:
            pool.stage(run.path, todo, backlog)
        return pool.begin_beside(seen, str(run.path))
    with backlog:
        backlog.offer_unstaged(run.path, todo)
    return None


@task(cache_policy=NO_CACHE)
def infer(run: Run, pool: Pool, todo: Sequence[int], backlog: Backlog, reduced: ReducedLevels | None = None) -> None:
    """Label tiles and write the outcome of each into the ledger; the mask's reduced levels begin with them."""
    if not todo:
        return
    watch = RunWatch(run, len(todo), pool, backlog)
    mask = run.open_mask()
    run.ledger.announce(INFERRING, {"todo": len(todo), "workers": pool.size})
    try:
        with about(run=run.path, slide=run.card.image.path), stop_on_signals() as stop:
            for ended in pool.infer(backlog, stop):
                if ended.fatal_error is not None:
                    raise ended.fatal_error
                record_result(run, mask, ended.result, ended.attempts, reduced)
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
        raise stopped_by(stop.by)


def show(run: Run, state: LedgerState, pictures: Pictures | None = None) -> None:
    """Put the picture, once it is drawn, and the failed tiles into Prefect's pages, beside the flow's other work."""

    def picture() -> None:
        shown = None
        if pictures is None and run.overlay_path.is_file():
            shown = data_url(run.overlay_path, SMALL_PX)
        elif pictures is not None and pictures.drawn.exception() is None:
            shown = pictures.drawn.result().small
        if shown is not None:
            key = artifact_key("overlay", run.path)
            create_image_artifact(shown, key=key, description=markdown(run.overlay_path))

    recorded_by_the_end(picture)
    if state.failed:
        rows = [{"reason": markdown(r.reason or ""), "tile": run.plan.tile(i).name} for i, r in state.failed.items()]
        message, key = f"Failed tiles of {markdown(run.path.name)}", artifact_key("failed-tiles", run.path)
        recorded_by_the_end(partial(create_table_artifact, key=key, table=rows, description=message))
