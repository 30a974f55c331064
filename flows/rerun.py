"""The flow that computes single tiles of a run again."""

from __future__ import annotations

import time

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.config.base import checked
from flows.config.deployed import allowed
from flows.config.run import RerunConfig
from flows.lifecycle.flow_states import finished, stoppable
from flows.pool.open import open_pool
from flows.reporting.logs import configure_logs
from flows.reporting.prefect_names import name_flow_run
from flows.run import steps
from flows.run.pictures import drawing
from flows.run.steps import Outcome, chosen_tiles, folded, summarise
from flows.segment import compute, export, find_objects, show, stitch
from tiling.export.formats import NONE
from tiling.runs.run import Run
from tiling.storage.place import lock_run

reopen = task(cache_policy=NO_CACHE)(steps.reopen)


@flow(name="rerun-tiles", validate_parameters=False)
@stoppable
def rerun(config: RerunConfig) -> Outcome:
    """Compute single tiles of a run again; no other byte of the mask changes."""
    configure_logs()
    started, config = time.monotonic(), allowed(checked(RerunConfig, config))
    name_flow_run(f"{config.run.name}: tiles again")
    Run.open(config.run)  # before a lock is left in what is no run
    with lock_run(config.run), open_pool(config) as pool:
        run = reopen(config)
        todo = chosen_tiles(run, config)
        compute(run, pool, todo, staged=False)
        state = stitch(run, folded(run))
        tasks = pool.tasks.of_mask(run.plan.mask.area)
        with drawing(run, state, tasks or pool.beside, small=True) as pictures:
            show(run, state, pictures)
            find_objects(run, state, each=pool.on_blocks)
            export(run, NONE, state, tasks, pictures)
        return finished(outcome := summarise(run, started, state), str(outcome))
