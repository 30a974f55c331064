"""The flow that asks whether a finished run can be trusted: bytes, labels, seams, pyramid."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.config import VerifyConfig, checked
from flows.pool import Pool
from flows.progress import Progress, enter, tell
from flows.result import Checked
from flows.segment import open_pool, reopen
from tiling.geometry import Box
from tiling.ledger import PYRAMID_DAMAGED, TileRecord, TileState
from tiling.plan import TilePlan
from tiling.run import Run
from tiling.stitching import BACKGROUND, NOT_PREDICTED
from tiling.storage import lock_run, write_atomic
from tiling.verification import Finding, check_pyramid, check_shards

REPORT_NAME = "verification.json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was checked and what was found.

    `damaged`: tile name to fault, also of those whose labels a new computation gives otherwise. `pending`: tiles that
    are not done yet. `recomputed` and `seams`: label by label against a new computation, over the
    tile itself and over a cut of the plane that has the tiles' borders inside.
    """

    run: str
    shards: int
    damaged: dict[str, str]
    pyramid_faults: list[str]
    pending: int = 0
    recomputed: list[Checked] = field(default_factory=list[Checked])
    seams: list[Checked] = field(default_factory=list[Checked])
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        return not (self.damaged or self.pyramid_faults or self.differing or self.pending)

    @property
    def unfinished(self) -> str:
        """What is said of tiles that are not done; nothing where all are."""
        if not self.pending:
            return ""
        return f"NOT sound: {self.pending} tiles are not done; run the overtile segment command of {self.run} again"

    @property
    def differing(self) -> int:
        """Labels that a new computation gives otherwise."""
        return sum(each.differing for each in (*self.recomputed, *self.seams))


@flow(name="verify-run", validate_parameters=False)
def verify(config: VerifyConfig) -> Verdict:
    """Check a run; damaged tiles are marked in the ledger, and nothing else is written but the report."""
    started, config = time.monotonic(), checked(VerifyConfig, config)
    Run.open(config.run)  # what is no run is refused before a lock is left in it
    with lock_run(config.run), open_pool(config) as pool:
        run = reopen(config) if config.tiles or config.seams else Run.open(config.run)
        findings = look_at_shards(run)
        mark(run, findings)
        pyramid = look_at_pyramid(run)
        recomputed = recompute(run, pool, sample(run, config))
        seams = recompute(run, pool, sample_seams(run, config))
        mark_differing(run, [*recomputed, *seams])
        return report(run, findings, pyramid, recomputed, seams, started)


@task(cache_policy=NO_CACHE)
def look_at_shards(run: Run) -> list[Finding]:
    """Every shard against its digest."""
    total = run.plan.count
    started = time.monotonic()
    found: list[Finding] = []
    for done, finding in enumerate(check_shards(run), start=1):
        found.append(finding)
        tell(Progress("shards", done, total, 0, 0, time.monotonic() - started, done))
    return found


@task(cache_policy=NO_CACHE)
def mark(run: Run, findings: Sequence[Finding]) -> None:
    """Write damaged tiles into the ledger, so that `rerun --damaged` and the next `segment` mend them.

    What skipped and failed tiles hold is known without computing: those are mended here.
    """
    states = run.ledger.fold().states
    mask = run.open_mask()
    for index, fault in ((each.tile, each.fault) for each in findings if each.fault is not None):
        tile, state = run.plan.tile(index), TileState(states[index])
        if state is TileState.SKIPPED:
            run.ledger.append(TileRecord(index, state, digest=mask.fill(tile, BACKGROUND), time=run.ledger.now()))
        elif state is TileState.FAILED:
            mask.fill(tile, NOT_PREDICTED)
        else:
            run.ledger.append(TileRecord(index, TileState.DAMAGED, reason=fault, time=run.ledger.now()))
    run.ledger.flush()


@task(cache_policy=NO_CACHE)
def mark_differing(run: Run, places: Sequence[Checked]) -> None:
    """Write the tiles under every place that differs into the ledger as damaged: which of them is wrong isn't known."""
    states = run.ledger.fold().states
    for each in (each for each in places if each.differing):
        fault = f"{each.differing} of {each.pixels} labels in {each.place} differ when computed again"
        for index in _shown_in(run.plan, Box(*each.place)):
            if states[index] == TileState.DONE:
                states[index] = TileState.DAMAGED
                run.ledger.append(TileRecord(index, TileState.DAMAGED, reason=fault, time=run.ledger.now()))
    run.ledger.flush()


def _shown_in(plan: TilePlan, place: Box) -> list[int]:
    """Tiles that have labels in a box of the mask."""
    return [tile.index for tile in plan.tiles() if not tile.valid.intersect(place).is_empty]


@task(cache_policy=NO_CACHE)
def look_at_pyramid(run: Run) -> list[str]:
    """Names of coarser shards that show something else than the level below, damaged tiles apart."""
    enter("pyramid")
    state = run.ledger.fold()
    if not state.pyramid_stands:
        return []
    faults = list(check_pyramid(run, (state.states == TileState.DAMAGED) | state.unstitched))
    if faults:
        run.ledger.announce(PYRAMID_DAMAGED, {"shards": len(faults)})
    return [f"level {level}, rows {box.y0}.., columns {box.x0}.." for level, box in faults]


@task(cache_policy=NO_CACHE)
def recompute(run: Run, pool: Pool, tiles: Sequence[tuple[int, int]]) -> list[Checked]:
    """Compute places of the image again, each given as (core, index), and count the labels that differ."""
    started = time.monotonic()
    found: list[Checked] = []
    for done, each in enumerate(pool.check(run.path, tiles), start=1):
        found.append(each)
        tell(Progress("recompute", done, len(tiles), 0, 0, time.monotonic() - started, done))
    return found


def sample(run: Run, config: VerifyConfig) -> list[tuple[int, int]]:
    """Tiles to compute again, drawn from those that are done."""
    done = run.ledger.fold().indices(TileState.DONE).tolist()
    chosen = random.Random(config.seed).sample(done, min(config.tiles, len(done)))
    return [(run.plan.core_px, index) for index in sorted(chosen)]


def sample_seams(run: Run, config: VerifyConfig) -> list[tuple[int, int]]:
    """Tiles of another plan, whose smaller cores have borders of this one inside and wider context around them.

    None for an approximate run: there, another cut gives other labels, as its card says.
    """
    if run.card.approximate:
        return []
    other = shifted(run.plan)
    places = list(_over_seams(run, other))
    chosen = random.Random(config.seed).sample(places, min(config.seams, len(places)))
    return [(other.core_px, index) for index in sorted(chosen)]


def shifted(plan: TilePlan) -> TilePlan:
    """The same plan with cores of about three quarters, so that its tiles lie across the borders of these."""
    stride = int(np.lcm(*plan.stride))
    core_px = max(stride, 3 * plan.core_px // 4 // stride * stride)
    return replace(plan, core_px=core_px)


def _over_seams(run: Run, other: TilePlan) -> Iterator[int]:
    """Tiles of the other plan that touch several tiles of the run, all of them done."""
    states = run.ledger.fold().states
    for tile in other.tiles():
        touched = run.plan.touching(tile.core)
        if len(touched) > 1 and all(states[index] == TileState.DONE for index in touched):
            yield tile.index


def report(
    run: Run,
    findings: Sequence[Finding],
    pyramid: list[str],
    recomputed: list[Checked],
    seams: list[Checked],
    started: float,
) -> Verdict:
    """Fold what was found, and leave it in the run folder; what was known to be damaged before still is."""
    state = run.ledger.fold()
    found = {each.tile: each.fault for each in findings if each.fault is not None}
    known = {index: record.reason or "it is damaged" for index, record in state.damaged.items()}
    verdict = Verdict(
        run=str(run.path),
        shards=len(findings),
        damaged={run.plan.tile(index).name: fault for index, fault in sorted((known | found).items())},
        pyramid_faults=pyramid,
        pending=state.count(TileState.PENDING),
        recomputed=recomputed,
        seams=seams,
        seconds=round(time.monotonic() - started, 3),
    )
    path = run.path / REPORT_NAME
    write_atomic(path, (json.dumps({**asdict(verdict), "sound": verdict.is_sound}, indent=2) + "\n").encode())
    return verdict
