"""Formats of a finished run written side by side: each file appears whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tiling.errors import TilingError, WritingError
from tiling.export.destination import replacing, scratch
from tiling.export.finished import Finished, Tally
from tiling.export.object_blocks import measured_objects
from tiling.export.object_columns import ObjectColumns
from tiling.export.object_table import ObjectTable
from tiling.export.readback import expect_readable
from tiling.export.rows import bands_of_labels, bands_of_objects, without_data
from tiling.objects.rows import polygons_of
from tiling.shapes import Shapes, polygonize
from tiling.shapes.spool import Spool
from tiling.storage.checksum import Checksum
from tiling.storage.disk import disk_errors, expect_there, make_folder

if TYPE_CHECKING:
    from tiling.export.formats import Format
    from tiling.runs.run import Run


SPOOLS = ("objects", "rows")
"""Names of the files beside the exports in which objects are kept on their way."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One format after its writing.

    Attributes:
        name: of the format.
        seconds: that it took.
        seals: checksums of its files; none where it failed.
        failure: why it is not written; None where it is.
    """

    name: str
    seconds: float = 0.0
    seals: Mapping[str, Checksum] = field(default_factory=dict[str, Checksum])
    failure: BaseException | None = None


class _Room(NamedTuple):
    """Files for objects on their way."""

    polygons: Path
    rows: Path


def written_formats(finished: Finished, formats: Sequence[Format]) -> Iterator[Ended]:
    """Write formats, and yield each as it ends.

    Images beside objects: the one pass over the mask that finds these feeds every format that is made of them.
    """
    # The objects' file goes last: writers of other formats may still read it when one fails.
    with _room(finished.run) as room, ThreadPoolExecutor(max(1, finished.threads)) as pool:
        writing: dict[Future[Ended], Format]
        writing = {pool.submit(_write, finished, each): each for each in formats if not each.of_objects}
        of_objects = [each for each in formats if each.of_objects]
        measured = [each for each in of_objects if each.measured and finished.objects is not None]
        try:
            # Areas on the ground are those of polygons; else nothing that is measured waits for these.
            measuring = pool.submit(_measured, finished, room) if measured and finished.ground is None else None
            known = _with_objects(finished, room) if _needs_polygons(finished, of_objects) else finished
            writing |= {pool.submit(_write, known, each): each for each in of_objects if each not in measured}
            if measured:
                table = _measured(known, room) if measuring is None else measuring.result()
                known = replace(known, measured=table)
            writing |= {pool.submit(_write, known, each): each for each in measured}
        except TilingError as error:
            yield Ended("objects", failure=error)
        for each in as_completed(writing):
            failure = each.exception()
            yield each.result() if failure is None else Ended(writing[each].name, failure=failure)


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


def _measured(finished: Finished, room: _Room) -> ObjectTable:
    """Measures of each numbered object, which are kept in a file too."""
    objects = finished.objects
    assert objects is not None
    columns = ObjectColumns.of(finished, objects.classes, finished.ground_areas)
    table = ObjectTable(room.rows, columns.schema, objects.count)
    with _errors(finished, "the table of objects"):
        table.extend(map(columns.batch, measured_objects(finished, objects)))
    return table


def _shapes_of(finished: Finished, tally: Tally) -> Iterator[Shapes]:
    """The run's numbered objects where it has some, else the areas of its mask."""
    without, mask, objects = without_data(finished.run, finished.state), finished.mask.pyramid, finished.objects
    if objects is None:
        yield from polygonize(bands_of_labels(mask, without))
        return
    tally.of_mask = np.zeros(256, np.int64)
    yield from polygons_of(objects, bands_of_objects(mask, objects.pyramid, without), tally.see)


def _write(finished: Finished, form: Format) -> Ended:
    """One format's files, all of which appear at its end."""
    started = time.monotonic()
    with ExitStack() as stack:
        paths = [stack.enter_context(replacing(finished.run.exports / file)) for file in form.files]
        with _errors(finished, form.name):
            form.write(finished, paths)
            expect_readable(finished, paths, form.name)
            seals = {file: Checksum.of(path) for file, path in zip(form.files, paths, strict=True)}
    return Ended(form.name, time.monotonic() - started, seals)


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
        room = _Room(*(scratch(run.exports / name) for name in SPOOLS))
        try:
            yield room
        finally:
            for path in room:
                path.unlink(missing_ok=True)
        return
    with TemporaryDirectory(prefix="overtile-") as folder:
        yield _Room(*(Path(folder) / name for name in SPOOLS))
