"""Steps of a verification, as plain functions: each is given the run's folded ledger, and takes in what it writes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from flows.config.run import VerifyConfig
from flows.pool.pool import Pool
from flows.reporting.progress import Progress, begin_stage, report_progress
from flows.worker.result import RecheckResult
from tiling.export.export_run import EXPORT_DAMAGED
from tiling.export.verification import check_exports, check_pictures, newly_damaged
from tiling.geometry import Box
from tiling.objects.record import OBJECTS_DAMAGED, built_objects, check_objects
from tiling.objects.write_labels import check_labels, note_damaged_labels
from tiling.plan import TilePlan
from tiling.runs.ledger import PYRAMID_DAMAGED, LedgerState, TileRecord, TileState
from tiling.runs.mask import NOT_PREDICTED
from tiling.runs.repair import fill_skipped
from tiling.runs.run import Run
from tiling.runs.verification import Finding, check_probability_pyramid, check_pyramid, check_shards


def check_every_shard(run: Run, state: LedgerState) -> list[Finding]:
    """Every shard against its digest."""
    total = run.plan.count
    started = time.monotonic()
    found: list[Finding] = []
    for done, finding in enumerate(check_shards(run, state), start=1):
        found.append(finding)
        report_progress(Progress("shards", done, total, 0, 0, time.monotonic() - started, done))
    return found


def mark(run: Run, state: LedgerState, findings: Sequence[Finding]) -> None:
    """Write damaged tiles into the ledger, so that `rerun --damaged` and the next `segment` repair them.

    What skipped and failed tiles hold is known without computing: those are repaired here.
    """
    mask, probabilities = run.open_mask(), run.open_probabilities()
    for index, fault in ((each.tile, each.fault) for each in findings if each.fault is not None):
        tile, kind = run.plan.tile(index), TileState(state.states[index])
        if kind is TileState.FAILED:
            mask.fill(tile, NOT_PREDICTED)
        if kind is TileState.FAILED or (kind is TileState.SKIPPED and fill_skipped(run, mask, tile, state)):
            if probabilities is not None:
                probabilities.clear(tile)
        else:
            _mark_damaged(run, state, index, fault)
    run.ledger.flush()


def mark_differing(run: Run, state: LedgerState, places: Sequence[RecheckResult]) -> None:
    """Write the tiles under every place that differs into the ledger as damaged: which of them is wrong isn't known."""
    for each in (each for each in places if each.differing):
        fault = f"{each.differing} of {each.pixels} labels in {each.place} differ when computed again"
        for index in _shown_in(run.plan, Box(*each.place)):
            if state.states[index] == TileState.DONE:
                _mark_damaged(run, state, index, fault)
    run.ledger.flush()


def _mark_damaged(run: Run, state: LedgerState, index: int, fault: str) -> None:
    record = TileRecord(index, TileState.DAMAGED, reason=fault, time=run.ledger.now())
    run.ledger.append(record)
    state.add(record)


def _shown_in(plan: TilePlan, place: Box) -> list[int]:
    """Tiles that have labels in a box of the mask."""
    return [tile.index for tile in plan.tiles() if not tile.valid.intersect(place).is_empty]


def check_pyramids(run: Run, state: LedgerState) -> list[str]:
    """Names of coarser shards that show something else than the level below, damaged tiles apart.

    All are compared, also where the ledger says already that the pyramid has to be built.
    """
    begin_stage("pyramid")
    damaged = state.states == TileState.DAMAGED
    checks = (("", check_pyramid), ("probabilities, ", check_probability_pyramid))
    faults = [(of, level, box) for of, check in checks for level, box in check(run, damaged)]
    if faults and state.pyramid_stands:
        state.add(run.ledger.announce(PYRAMID_DAMAGED, {"shards": len(faults)}))
    return [f"{of}level {level}, rows {box.y0}.., columns {box.x0}.." for of, level, box in faults]


def check_files(run: Run, state: LedgerState) -> dict[str, str]:
    """Objects, pictures and exports that aren't what was written, or not of this mask; the ledger marks them for
    renewal.
    """
    begin_stage("exports")
    fault = check_objects(run, state)
    if fault is not None and built_objects(run, state) is not None:
        state.add(run.ledger.announce(OBJECTS_DAMAGED, {}))
    objects = {} if fault is None else {run.objects_path.name: fault}
    if (labels := check_labels(run, state)) is not None:
        note_damaged_labels(run, state)
        objects |= [labels]
    exports = dict(check_exports(run, state))
    for name in newly_damaged(state, exports):
        state.add(run.ledger.announce(EXPORT_DAMAGED, {"format": name}))
    return objects | exports | dict(check_pictures(run, state))


def recompute(run: Run, pool: Pool, tiles: Sequence[tuple[int, int]]) -> list[RecheckResult]:
    """Compute places of the image again, each given as (core, index), and count the labels that differ."""
    started = time.monotonic()
    found: list[RecheckResult] = []
    for done, each in enumerate(pool.check(run.path, tiles), start=1):
        found.append(each)
        report_progress(Progress("recompute", done, len(tiles), 0, 0, time.monotonic() - started, done))
    return found


def sample(run: Run, state: LedgerState, config: VerifyConfig) -> list[tuple[int, int]]:
    """Tiles to compute again, drawn from those that are done."""
    done = state.indices(TileState.DONE).tolist()
    chosen = random.Random(config.seed).sample(done, min(config.tiles, len(done)))
    return [(run.plan.core_px, index) for index in sorted(chosen)]


def sample_seams(run: Run, state: LedgerState, config: VerifyConfig) -> list[tuple[int, int]]:
    """Tiles of another plan, whose smaller cores have borders of this one inside and wider context around them.

    None for an approximate run: there, another cut gives other labels, as its card says.
    """
    if run.card.approximate:
        return []
    other = shifted(run.plan)
    places = list(_over_seams(run, state, other))
    chosen = random.Random(config.seed).sample(places, min(config.seams, len(places)))
    return [(other.core_px, index) for index in sorted(chosen)]


def shifted(plan: TilePlan) -> TilePlan:
    """The same plan with cores of about three quarters, so that its tiles lie across the borders of these."""
    stride = int(np.lcm(*plan.stride))
    core_px = max(stride, 3 * plan.core_px // 4 // stride * stride)
    return replace(plan, core_px=core_px)


def _over_seams(run: Run, state: LedgerState, other: TilePlan) -> Iterator[int]:
    """Tiles of the other plan that touch several tiles of the run, all of them done."""
    for tile in other.tiles():
        touched = run.plan.touching(tile.core)
        if len(touched) > 1 and all(state.states[index] == TileState.DONE for index in touched):
            yield tile.index
