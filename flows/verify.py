"""The flow that asks whether a finished run can be trusted: bytes, labels, seams, pyramid."""

from __future__ import annotations

import time

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.config.base import checked
from flows.config.run import VerifyConfig
from flows.lifecycle.flow_states import stoppable
from flows.pool.open import open_pool
from flows.rerun import reopen
from flows.run import verification as steps
from flows.run.steps import folded
from flows.run.verification import sample, sample_seams
from flows.run.verification_report import VerificationReport, report
from tiling.runs.run import Run
from tiling.storage.place import lock_run

check_every_shard = task(cache_policy=NO_CACHE)(steps.check_every_shard)
mark = task(cache_policy=NO_CACHE)(steps.mark)
check_pyramids = task(cache_policy=NO_CACHE)(steps.check_pyramids)
check_files = task(cache_policy=NO_CACHE)(steps.check_files)
recompute = task(cache_policy=NO_CACHE)(steps.recompute)
mark_differing = task(cache_policy=NO_CACHE)(steps.mark_differing)


@flow(name="verify-run", validate_parameters=False)
@stoppable
def verify(config: VerifyConfig) -> VerificationReport:
    """Check a run; what is damaged is marked in the ledger, and nothing else is written but the report.

    The answer is of the disk as it is now, so it is the same until something is repaired.
    """
    started, config = time.monotonic(), checked(VerifyConfig, config)
    Run.open(config.run)  # what is no run is refused before a lock is left in it
    with lock_run(config.run), open_pool(config) as pool:
        run = reopen(config) if config.tiles or config.seams else Run.open(config.run)
        state = folded(run)
        if lost := run.lost_metadata():
            return report(run, state, lost=lost, started=started)
        findings = check_every_shard(run, state)
        mark(run, state, findings)
        pyramid = check_pyramids(run, state)
        exports = check_files(run, state)
        recomputed = recompute(run, pool, sample(run, state, config))
        seams = recompute(run, pool, sample_seams(run, state, config))
        mark_differing(run, state, [*recomputed, *seams])
        return report(run, state, findings, pyramid, recomputed, seams, exports, started=started)
