"""Exports of a finished run: only what was asked for and has changed, each file whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiling.errors import ExportError, TilingError, WritingError
from tiling.export.destination import replacing, scratch
from tiling.export.finished import Finished, Tally
from tiling.export.formats import FORMATS, Format, chosen_formats
from tiling.export.object_blocks import measured_objects
from tiling.export.object_columns import ObjectColumns
from tiling.export.object_table import ObjectTable
from tiling.export.readback import expect_readable
from tiling.export.rows import bands_of_labels, bands_of_objects, without_data
from tiling.objects.record import built_objects, objects_digest
from tiling.objects.rows import polygons_of
from tiling.runs.ledger import LedgerState
from tiling.runs.mask_digest import mask_digest
from tiling.runs.placement import placement_of
from tiling.shapes import Shapes, polygonize
from tiling.shapes.spool import Spool
from tiling.storage.checksum import Checksum, size_of
from tiling.storage.disk import disk_errors, expect_there, make_folder

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

Written = tuple[float, dict[str, Checksum]]
"""The seconds that a format took, and what its files are."""


class _Room(NamedTuple):
    """Files for objects on their way."""

    polygons: Path
    rows: Path


def export_run(
    run: Run,
    source: ImageSource,
    wanted: str,
    state: LedgerState | None = None,
    *,
    again: bool = False,
    threads: int = 2,
) -> list[Format]:
    """Write the formats that are wanted, and those of earlier exports that no longer show the mask.

    Args:
        run: a run with its pyramid built; its one driver calls this.
        source: the run's image as it was segmented, which metadata and the thumbnail are taken from.
        wanted: `none`, `auto` or names with commas in between.
        state: the run's folded ledger, which takes in what is exported; None folds it.
        again: write also what shows the mask already.
        threads: that one writer may use.

    Returns:
        The formats that were written.

    Raises:
        ExportError: a format can't say what this run is.
        WritingError, DiskError: a file can't be written; earlier ones are kept, and the other formats written.
    """
    state = run.ledger.fold(held=True) if state is None else state
    expect_finished(run, state)
    placement = placement_of(run, source)
    built = built_objects(run, state)
    finished = Finished(run, state, placement, mask_digest(run, state), source, built=built, threads=threads)
    shown = _shown(run, state)
    kept = bool(run.card.probabilities)
    asked = chosen_formats(wanted, placement, probabilities=kept, numbered=built is not None)
    stale = [each for name, each in FORMATS.items() if not shown.get(name, True) and each not in asked]
    todo = [each for each in (*asked, *stale) if again or not shown.get(each.name, False)]
    for each in todo:
        each.expect(finished.subject)
    _write_all(finished, todo)
    return todo


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


def _write_all(finished: Finished, formats: Sequence[Format]) -> None:
    """Images beside objects: the one pass over the mask that finds these feeds every format that is made of them.

    What fails keeps no other format from being written, nor the ledger from knowing it.
    """
    failures: list[BaseException] = []
    # The objects' file goes last: writers of other formats may still read it when one fails.
    with _room(finished.run) as room, ThreadPoolExecutor(max(1, finished.threads)) as pool:
        writing: dict[Future[Written], Format]
        writing = {pool.submit(_write, finished, each): each for each in formats if not each.of_objects}
        of_objects = [each for each in formats if each.of_objects]
        try:
            known = _with_objects(finished, room) if _needs_polygons(finished, of_objects) else finished
            plain = [each for each in of_objects if known.objects is None or not each.measured]
            writing |= {pool.submit(_write, known, each): each for each in plain}
            measured = [each for each in of_objects if each not in plain]
            known = _with_measurements(known, room) if measured else known
            writing |= {pool.submit(_write, known, each): each for each in measured}
        except TilingError as error:
            failures.append(error)
        failures += _announced(finished, writing)
    if failures:
        raise failures[0]


def _needs_polygons(finished: Finished, of_objects: Sequence[Format]) -> bool:
    """True if a format shows outlines or counts by them, or areas on the ground are those of polygons."""
    return any(not each.of_instances or finished.ground is not None for each in of_objects)


def _with_objects(finished: Finished, room: _Room) -> Finished:
    """The run with its objects, which are kept in a file."""
    spool, tally = Spool(room.polygons), Tally()
    numbers = 0 if finished.objects is None else finished.objects.count + 1
    ground = np.zeros(numbers) if finished.ground is not None and numbers else None
    with _errors(finished, "the list of objects"):
        for shapes in spool.extend(_shapes_of(finished, tally)):
            areas = finished.areas(shapes)
            tally.add(shapes, areas)
            if ground is not None and areas is not None:
                np.add.at(ground, shapes.ids, areas)
    return replace(finished, shapes=spool, tally=tally, ground_areas=ground)


def _with_measurements(finished: Finished, room: _Room) -> Finished:
    """The run with what is measured of each numbered object, which is kept in a file too."""
    objects = finished.objects
    assert objects is not None
    columns = ObjectColumns.of(finished, objects.classes, finished.ground_areas)
    table = ObjectTable(room.rows, columns.schema, objects.count)
    with _errors(finished, "the table of objects"):
        table.extend(map(columns.batch, measured_objects(finished, objects)))
    return replace(finished, measured=table)


def _shapes_of(finished: Finished, tally: Tally) -> Iterator[Shapes]:
    """The run's numbered objects where it has some, else the areas of its mask."""
    without, mask, objects = without_data(finished.run, finished.state), finished.mask.pyramid, finished.objects
    if objects is None:
        yield from polygonize(bands_of_labels(mask, without))
        return
    tally.of_mask = np.zeros(256, np.int64)
    yield from polygons_of(objects, bands_of_objects(mask, objects.pyramid, without), tally.see)


def _announced(finished: Finished, writing: Mapping[Future[Written], Format]) -> list[BaseException]:
    """Record each format in the ledger as it ends; returns why the others failed, the first one first."""
    failures: list[BaseException] = []
    digests = digests_of(finished.run, finished.state)
    for each in as_completed(writing):
        failure = each.exception()
        if failure is not None:
            failures.append(failure)
            continue
        form = writing[each]
        facts = {"format": form.name, "mask": digests[form.name], "version": VERSION, "files": form.files}
        seconds, seals = each.result()
        sealed = {file: seal.facts() for file, seal in seals.items()}
        facts |= {"seals": sealed, "seconds": round(seconds, 3)}
        finished.state.add(finished.run.ledger.announce(EXPORTED, facts))
    return failures


def _write(finished: Finished, form: Format) -> Written:
    """One format's files, all of which appear at its end; gives the seconds that they took, and what they are."""
    started = time.monotonic()
    with ExitStack() as stack:
        paths = [stack.enter_context(replacing(finished.run.exports / file)) for file in form.files]
        with _errors(finished, form.name):
            form.write(finished, paths)
            expect_readable(finished, paths, form.name)
            seals = {file: Checksum.of(path) for file, path in zip(form.files, paths, strict=True)}
    return time.monotonic() - started, seals


@contextmanager
def _errors(finished: Finished, what: str) -> Generator[None]:
    """Say of a library's or the disk's failure what it means for the exports and what helps."""
    try:
        yield
    except TilingError:
        raise
    except (OSError, RuntimeError, ValueError, ArithmeticError) as error:
        if isinstance(finished.run.path, Path):
            expect_there(finished.run.path)
        room = f"make space in {_folder(finished.run)} or " if isinstance(error, OSError) else ""
        raise WritingError(
            f"{what} of {finished.run.path} can't be written ({' '.join(str(error).split())[:300]}): earlier exports "
            f"are kept; {room}choose another --format, then export again"
        ) from error


def _folder(run: Run) -> str:
    """Folder in which files are made that are written."""
    if isinstance(run.exports, Path):
        return str(run.exports)
    return f"{gettempdir()} (or set TMPDIR to another folder)"


@contextmanager
def _room(run: Run) -> Generator[_Room]:
    """Files for objects on their way: beside the exports, or in the system's folder for temporary files."""
    if isinstance(run.exports, Path):
        with disk_errors(run.exports):
            make_folder(run.exports, run.exports.parent)
        room = _Room(scratch(run.exports / "objects"), scratch(run.exports / "rows"))
        try:
            yield room
        finally:
            for path in room:
                path.unlink(missing_ok=True)
        return
    with TemporaryDirectory(prefix="overtile-") as folder:
        yield _Room(Path(folder) / "objects", Path(folder) / "rows")
