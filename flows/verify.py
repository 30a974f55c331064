"""The flow that asks whether a finished run can be trusted: bytes, labels, seams, pyramid."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.config.run import VerifyConfig, checked
from flows.pool.open import open_pool
from flows.pool.pool import Pool
from flows.reporting.progress import Progress, begin_stage, report_progress
from flows.rerun import reopen
from flows.worker.result import RecheckResult
from tiling.escaping import word
from tiling.export.export_run import EXPORT_DAMAGED
from tiling.export.verification import NOT_KNOWN, check_exports, check_pictures, newly_damaged
from tiling.geometry import Box
from tiling.plan import TilePlan
from tiling.runs.ledger import CARD, PLANNED, PYRAMID_DAMAGED, LedgerState, TileRecord, TileState
from tiling.runs.mask import NOT_PREDICTED
from tiling.runs.repair import fill_skipped
from tiling.runs.run import Run
from tiling.runs.verification import Finding, check_probability_pyramid, check_pyramid, check_shards
from tiling.storage.place import lock_run, write_atomic

REPORT_NAME = "verification.json"


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """Report of what was checked and found.

    `damaged`: tile name to fault, also of those whose labels a new computation gives otherwise. `pending`: tiles that
    are not done yet. `recomputed` and `seams`: label by label against a new computation, over the
    tile itself and over a cut of the plane that has the tiles' borders inside. `lacking`: what is not built, or was not
    looked at since what it is looked at with is lost. `exports`: file to fault. `unchecked`: what nothing is known of
    that it could be held against. `notes`: what is worth knowing and takes nothing from the run.
    """

    run: str
    shards: int
    damaged: dict[str, str]
    pyramid_faults: list[str]
    pending: int = 0
    recomputed: list[RecheckResult] = field(default_factory=list[RecheckResult])
    seams: list[RecheckResult] = field(default_factory=list[RecheckResult])
    seconds: float = 0.0
    lacking: list[str] = field(default_factory=list[str])
    exports: dict[str, str] = field(default_factory=dict[str, str])
    unchecked: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    remedy: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether something is not as it has to be, or not there."""
        wrong = self.damaged or self.pyramid_faults or self.differing or self.pending or self.lacking or self.exports
        return bool(wrong)

    @property
    def is_sound(self) -> bool:
        """Whether every shard of every level, every picture and every export is there and is what it was."""
        return not (self.is_wrong or self.unchecked)

    @property
    def unfinished(self) -> str:
        """Sentence about tiles that are not done; empty where all are."""
        if not self.pending:
            return ""
        return f"NOT sound: {self.pending} tiles are not done; run the overtile segment command of {self.run} again"

    @property
    def differing(self) -> int:
        """Labels that a new computation gives otherwise."""
        return sum(each.differing for each in (*self.recomputed, *self.seams))


@flow(name="verify-run", validate_parameters=False)
def verify(config: VerifyConfig) -> VerificationReport:
    """Check a run; what is damaged is marked in the ledger, and nothing else is written but the report.

    The answer is of the disk as it is now, so it is the same until something is repaired.
    """
    started, config = time.monotonic(), checked(VerifyConfig, config)
    Run.open(config.run)  # what is no run is refused before a lock is left in it
    with lock_run(config.run), open_pool(config) as pool:
        run = reopen(config) if config.tiles or config.seams else Run.open(config.run)
        if lost := run.lost_metadata():
            return report(run, lost=lost, started=started)
        findings = check_shards_task(run)
        mark(run, findings)
        pyramid = check_pyramid_task(run)
        exports = check_exports_task(run)
        recomputed = recompute(run, pool, sample(run, config))
        seams = recompute(run, pool, sample_seams(run, config))
        mark_differing(run, [*recomputed, *seams])
        return report(run, findings, pyramid, recomputed, seams, exports, started=started)


@task(cache_policy=NO_CACHE)
def check_shards_task(run: Run) -> list[Finding]:
    """Every shard against its digest."""
    total = run.plan.count
    started = time.monotonic()
    found: list[Finding] = []
    for done, finding in enumerate(check_shards(run), start=1):
        found.append(finding)
        report_progress(Progress("shards", done, total, 0, 0, time.monotonic() - started, done))
    return found


@task(cache_policy=NO_CACHE)
def mark(run: Run, findings: Sequence[Finding]) -> None:
    """Write damaged tiles into the ledger, so that `rerun --damaged` and the next `segment` repair them.

    What skipped and failed tiles hold is known without computing: those are repaired here.
    """
    state_of_run = run.ledger.fold()
    mask, probabilities = run.open_mask(), run.open_probabilities()
    for index, fault in ((each.tile, each.fault) for each in findings if each.fault is not None):
        tile, state = run.plan.tile(index), TileState(state_of_run.states[index])
        if state is TileState.FAILED:
            mask.fill(tile, NOT_PREDICTED)
        if state is TileState.FAILED or (state is TileState.SKIPPED and fill_skipped(run, mask, tile, state_of_run)):
            if probabilities is not None:
                probabilities.clear(tile)
        else:
            run.ledger.append(TileRecord(index, TileState.DAMAGED, reason=fault, time=run.ledger.now()))
    run.ledger.flush()


@task(cache_policy=NO_CACHE)
def mark_differing(run: Run, places: Sequence[RecheckResult]) -> None:
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
def check_pyramid_task(run: Run) -> list[str]:
    """Names of coarser shards that show something else than the level below, damaged tiles apart.

    All are compared, also where the ledger says already that the pyramid has to be built.
    """
    begin_stage("pyramid")
    state = run.ledger.fold()
    damaged = state.states == TileState.DAMAGED
    checks = (("", check_pyramid), ("probabilities, ", check_probability_pyramid))
    faults = [(of, level, box) for of, check in checks for level, box in check(run, damaged)]
    if faults and state.pyramid_stands:
        run.ledger.announce(PYRAMID_DAMAGED, {"shards": len(faults)})
    return [f"{of}level {level}, rows {box.y0}.., columns {box.x0}.." for of, level, box in faults]


@task(cache_policy=NO_CACHE)
def check_exports_task(run: Run) -> dict[str, str]:
    """Pictures and exports that aren't what was written, or not of this mask; the ledger marks them for renewal."""
    begin_stage("exports")
    state = run.ledger.fold()
    exports = dict(check_exports(run, state))
    for name in newly_damaged(state, exports):
        run.ledger.announce(EXPORT_DAMAGED, {"format": name})
    return exports | dict(check_pictures(run, state))


@task(cache_policy=NO_CACHE)
def recompute(run: Run, pool: Pool, tiles: Sequence[tuple[int, int]]) -> list[RecheckResult]:
    """Compute places of the image again, each given as (core, index), and count the labels that differ."""
    started = time.monotonic()
    found: list[RecheckResult] = []
    for done, each in enumerate(pool.check(run.path, tiles), start=1):
        found.append(each)
        report_progress(Progress("recompute", done, len(tiles), 0, 0, time.monotonic() - started, done))
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
    findings: Sequence[Finding] = (),
    pyramid: Sequence[str] = (),
    recomputed: Sequence[RecheckResult] = (),
    seams: Sequence[RecheckResult] = (),
    exports: Mapping[str, str] | None = None,
    *,
    lost: Sequence[str] = (),
    started: float,
) -> VerificationReport:
    """Fold what was found, and leave it in the run folder; what was known to be damaged before still is."""
    state = run.ledger.fold()
    exports = exports or {}
    found = {each.tile: each.fault for each in findings if each.fault is not None}
    known = {index: record.reason or "it is damaged" for index, record in state.damaged.items()}
    report = VerificationReport(
        run=str(run.path),
        shards=len(findings) + len(known.keys() - {each.tile for each in findings}),
        damaged={run.plan.tile(index).name: fault for index, fault in sorted((known | found).items())},
        pyramid_faults=[*pyramid],
        pending=state.count(TileState.PENDING),
        recomputed=[*recomputed],
        seams=[*seams],
        seconds=round(time.monotonic() - started, 3),
        lacking=[*_lacking(run, state, lost)],
        exports={file: fault for file, fault in exports.items() if fault != NOT_KNOWN},
        unchecked=[*_unchecked(findings, exports)],
        notes=[*_notes(run, state, lost)],
    )
    report = replace(report, remedy=_remedy(report, state, lost))
    path = run.path / REPORT_NAME
    write_atomic(path, (json.dumps({**asdict(report), "sound": report.is_sound}, indent=2) + "\n").encode())
    return report


def _lacking(run: Run, state: LedgerState, lost: Sequence[str]) -> Iterator[str]:
    """Parts that are not built, failed, or keep the rest from being looked at."""
    if lost:
        yield f"metadata is lost or damaged ({', '.join(lost[:5])}), so nothing below it was looked at"
    if state.failed:
        named = ", ".join(run.plan.tile(index).name for index in list(state.failed)[:5])
        yield f"{len(state.failed)} tiles failed and hold no labels (such as {named})"
    waiting = state.unstitched & (state.states != TileState.DAMAGED)
    if not state.pyramid_stands or waiting.any():
        yield "the pyramid isn't built over all tiles"
    planned = state.last_event(PLANNED)
    if planned is not None and planned.facts.get(CARD, run.card.digest()) != run.card.digest():
        yield "run.json isn't what it was when the run began; restore it"


def _unchecked(findings: Sequence[Finding], exports: Mapping[str, str]) -> Iterator[str]:
    """Parts that runs of earlier versions kept no digest of."""
    for what, count in Counter(each.unchecked for each in findings if each.unchecked is not None).items():
        yield f"{what} of {count} tiles: the ledger has no digest of them; a rerun of a tile writes it down"
    for file, fault in exports.items():
        if fault == NOT_KNOWN:
            yield f"{file}: {fault}"


def _notes(run: Run, state: LedgerState, lost: Sequence[str]) -> Iterator[str]:
    """Notes that don't count against the run."""
    if gaps := run.ledger.gaps():
        numbers = ", ".join(f"{number:08d}" for number in gaps[:5])
        yield f"the ledger has lost {len(gaps)} segments ({numbers}): what they held counts as if it had never been"
    planned = state.last_event(PLANNED)
    if planned is None or CARD not in planned.facts:
        yield "run.json: an earlier version wrote it and kept no digest of it"
    if lost:
        return
    if altered := run.altered_metadata():
        yield f"{', '.join(altered[:5])} says other names, colours or codecs than were planned"
    for image in (run.open_mask(read_only=True), run.open_probabilities(read_only=True)):
        if image is not None and (unknown := image.pyramid.unknown_files()):
            yield f"{len(unknown)} files in {image.path.name} are no part of it, such as {unknown[0]}"


def _remedy(report: VerificationReport, state: LedgerState, lost: Sequence[str]) -> str:
    """The command that repairs what can be repaired."""
    if report.is_sound:
        return ""
    if report.pending or lost:
        return f"run the overtile segment command of {report.run} again"
    if not (report.is_wrong or report.exports) and all("ledger" in each for each in report.unchecked):
        return ""  # nothing is wrong, and what is computed again is chosen by a person
    return f"overtile rerun {word(report.run)} {'--failed ' if state.failed else ''}--damaged"
