"""Exports of a finished run: only what was asked for and has changed, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tiling.errors import ExportError
from tiling.export.export_task import ExportTask, finished_of, parts_of
from tiling.export.finished import Finished
from tiling.export.formats import FORMATS, Format, chosen_formats
from tiling.export.write_formats import Ended, written_formats
from tiling.objects.record import objects_digest
from tiling.runs.ledger import LedgerState
from tiling.runs.mask_digest import mask_digest
from tiling.storage.checksum import Checksum, size_of
from tiling.storage.task_map import TaskMap

if TYPE_CHECKING:
    from tiling.runs.run import Run
    from tiling.source import ImageSource

EXPORTED = "exported"
"""The event after which a format's files show the mask of that digest."""
EXPORT_DAMAGED = "export damaged"
"""The event after which a format's files are no longer what was written."""
EXPORTS_ASKED = "exports asked"
"""The event that names the formats with which the run is to end: those that a killed driver has not come to yet."""
VERSION = 6
"""Of what the files hold: files of another version are written anew."""


def export_run(
    run: Run,
    source: ImageSource,
    wanted: str,
    state: LedgerState | None = None,
    *,
    again: bool = False,
    threads: int = 2,
    tasks: TaskMap | None = None,
) -> list[Format]:
    """Write the formats that are wanted, and those of earlier exports that no longer show the mask.

    Args:
        run: a run with its pyramid built; its one driver calls this.
        source: the run's image as it was segmented, which metadata and the thumbnail are taken from.
        wanted: `none`, `auto` or names with commas in between.
        state: the run's folded ledger, which takes in what is exported; None folds it.
        again: write also what shows the mask already.
        threads: that one writer may use.
        tasks: in which the files are written, in other processes; None writes them in threads of this one.

    Returns:
        The formats that were written.

    Raises:
        ExportError: a format can't say what this run is.
        WritingError, DiskError: a file can't be written; earlier ones are kept, and the other formats written.
        ImageChangedError: a task found another image.
    """
    state = run.ledger.fold(held=True) if state is None else state
    expect_finished(run, state)
    finished = finished_of(run, state, source, threads)
    shown = _shown(run, state)
    kept, numbered = bool(run.card.probabilities), finished.built is not None
    asked = chosen_formats(wanted, finished.placement, probabilities=kept, numbered=numbered)
    stale = [each for name, each in FORMATS.items() if not shown.get(name, True) and each not in asked]
    todo = [each for each in (*asked, *stale) if again or not shown.get(each.name, False)]
    for each in todo:
        each.expect(finished.subject)
    with closing(_ended(finished, todo, tasks)) as ended:
        _announce_all(finished, ended)
    return todo


def _ended(finished: Finished, formats: Sequence[Format], tasks: TaskMap | None) -> Generator[Ended]:
    if tasks is None or not formats:
        yield from written_formats(finished, formats)
        return
    task = ExportTask(str(finished.run.path), finished.state, finished.threads)
    for part in tasks(task, parts_of(formats)):
        yield from part


def expect_finished(run: Run, state: LedgerState) -> None:
    """Refuse a run that lacks tiles, or whose pyramid doesn't show them all.

    Raises:
        ExportError: exports would show less than the run will hold.
    """
    if not state.is_closed:
        raise ExportError(
            f"{run.path} is not finished ({state.missing}; {run.plan.count} tiles in all): exports would show less "
            f"than it will hold; run the segment command again, then export"
        )


def is_shown(run: Run, state: LedgerState, name: str) -> bool:
    """True if a format's files are there and show the mask as it is."""
    return _shown(run, state).get(name, False)


def digests_of(run: Run, state: LedgerState) -> dict[str, str]:
    """By format the digest of what it has to show: of those that are made of objects, also of these."""
    mask, objects = mask_digest(run, state), objects_digest(run, state)
    return {name: objects if form.of_objects else mask for name, form in FORMATS.items()}


def _shown(run: Run, state: LedgerState) -> dict[str, bool]:
    """Formats that were asked for or exported before, and whether their files still are there and show the mask."""
    digests = digests_of(run, state)
    shown = dict.fromkeys(asked_formats(state), False)
    for event in state.events:
        name = event.facts.get("format")
        if event.name == EXPORTED and name in FORMATS:
            is_current = (event.facts["mask"], event.facts["version"]) == (digests[name], VERSION)
            shown[name] = is_current and _are_there(run, FORMATS[name], event.facts.get("seals", {}))
        elif event.name == EXPORT_DAMAGED and name in FORMATS:
            shown[name] = False
    return shown


def asked_formats(state: LedgerState) -> list[str]:
    """Names of the formats with which the run is to end, as far as they are known to this version."""
    event = state.last_event(EXPORTS_ASKED)
    return [name for name in event.facts["formats"] if name in FORMATS] if event is not None else []


def _are_there(run: Run, form: Format, seals: dict[str, Any]) -> bool:
    """True if files of the sizes that were written are there; those of which no size is known are written anew."""
    for file in form.files:
        seal = Checksum.parse(seals.get(file))
        try:
            if seal is None or size_of(run.exports / file) != seal.bytes:
                return False
        except FileNotFoundError:
            return False
    return True


def _announce_all(finished: Finished, ended: Iterable[Ended]) -> None:
    """Record each format in the ledger as it ends.

    What fails keeps no other format from being written, nor the ledger from knowing it.
    """
    failures: list[BaseException] = []
    digests = digests_of(finished.run, finished.state)
    for each in ended:
        if each.failure is not None:
            failures.append(each.failure)
            continue
        facts: dict[str, Any] = {"format": each.name, "mask": digests[each.name], "version": VERSION}
        sealed = {file: seal.facts() for file, seal in each.seals.items()}
        facts |= {"files": FORMATS[each.name].files, "seals": sealed, "seconds": round(each.seconds, 3)}
        finished.state.add(finished.run.ledger.announce(EXPORTED, facts, soon=True))
    finished.run.ledger.flush()
    if failures:
        raise failures[0]
