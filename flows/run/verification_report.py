"""Report of a verification: what was checked, what was found, and the command that repairs it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from flows.worker.result import RecheckResult
from tiling.export.foreign_files import unknown_files
from tiling.export.verification import NOT_KNOWN
from tiling.runs.ledger import CARD, PLANNED, LedgerState, TileState
from tiling.runs.run import Run
from tiling.runs.verification import Finding
from tiling.storage.place import pasted, place_of, write_atomic

REPORT_NAME = "verification.json"


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """Report of what was checked and found.

    `damaged`: tile name to fault, also of those whose labels a new computation gives otherwise. `pending`: tiles that
    are not done yet. `recomputed` and `seams`: label by label against a new computation, over the
    tile itself and over a cut of the plane that has the tiles' borders inside. `lacking`: what is not built, or was not
    looked at since what it is looked at with is lost. `exports`: file to fault. `unchecked`: what nothing is known of
    that it could be held against. `notes`: what is worth knowing and takes nothing from the run. `unknown`: files in
    its folders that no driver has written, by path in the run.
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
    unknown: list[str] = field(default_factory=list[str])

    @property
    def is_wrong(self) -> bool:
        """True if something is not as it has to be, or not there."""
        wrong = self.damaged or self.pyramid_faults or self.differing or self.pending or self.lacking or self.exports
        return bool(wrong)

    @property
    def is_sound(self) -> bool:
        """True if every shard of every level, every picture and every export is there and is what it was."""
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


def report(
    run: Run,
    state: LedgerState,
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
        notes=[*_notes(run, state, lost, unknown := unknown_files(run, thorough=True))],
        unknown=unknown,
    )
    report = replace(report, remedy=_remedy(report, state, lost))
    path = run.path / REPORT_NAME
    said = {name: value for name, value in asdict(report).items() if name != "unknown"}
    write_atomic(path, (json.dumps({**said, "sound": report.is_sound}, indent=2) + "\n").encode())
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


def _notes(run: Run, state: LedgerState, lost: Sequence[str], unknown: Sequence[str]) -> Iterator[str]:
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
    for image in (run.mask_path.name, run.probabilities_path.name):
        if found := [each for each in unknown if each.startswith(f"{image}/")]:
            yield f"{len(found)} files in {image} are no part of it, such as {found[0].removeprefix(f'{image}/')}"


def _remedy(report: VerificationReport, state: LedgerState, lost: Sequence[str]) -> str:
    """The command that repairs what can be repaired."""
    if report.is_sound:
        return ""
    if report.pending or lost:
        return f"run the overtile segment command of {report.run} again"
    if not report.is_wrong and all("ledger" in each for each in report.unchecked):
        return ""  # nothing is wrong, and what is computed again is chosen by a person
    return f"overtile rerun {pasted(place_of(report.run))} {'--failed ' if state.failed else ''}--damaged"
