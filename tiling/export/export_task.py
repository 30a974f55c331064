"""Exports as tasks for other processes: which formats go together, and the run that each opens for itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiling.errors import TilingError
from tiling.export.finished import Finished
from tiling.export.formats import FORMATS, Format
from tiling.export.write_formats import SPOOLS, Ended, written_formats
from tiling.objects.record import built_objects
from tiling.runs.ledger import LedgerState
from tiling.runs.mask_digest import mask_digest
from tiling.runs.placement import placement_of
from tiling.storage.place import Place, place_of

if TYPE_CHECKING:
    from tiling.runs.run import Run
    from tiling.source import ImageSource


@dataclass(frozen=True, slots=True)
class ExportTask:
    """Writes formats of a run that is finished, in whatever process.

    Attributes:
        run: its place.
        state: its folded ledger.
        threads: that one writer may use.
    """

    run: str
    state: LedgerState
    threads: int

    def __call__(self, names: tuple[str, ...]) -> list[Ended]:
        """Write formats; what a process that was killed left of them goes first.

        Raises:
            ImageChangedError: the image isn't the run's any more.
            Exception: a fault of the program.
        """
        from tiling.runs.run import Run

        run = Run.open(place_of(self.run))
        formats = [FORMATS[name] for name in names]
        sweep_half_written(run.exports, formats)
        with run.open_verified() as steady:
            ended = [*written_formats(finished_of(run, self.state, steady.source, self.threads), formats)]
            steady.expect_same()
        for each in ended:
            if each.failure is not None and not isinstance(each.failure, TilingError):
                raise each.failure
        return ended


def finished_of(run: Run, state: LedgerState, source: ImageSource, threads: int) -> Finished:
    """A finished run as exporters see it; `source` is its image as it was segmented."""
    placement, digest, built = placement_of(run, source), mask_digest(run, state), built_objects(run, state)
    return Finished(run, state, placement, digest, source, built=built, threads=threads)


def parts_of(formats: Sequence[Format]) -> list[tuple[str, ...]]:
    """Names of formats, those together that one task writes: all that are made of objects, which are found once.

    They take longest, and come first.
    """
    of_objects = tuple(each.name for each in formats if each.of_objects)
    return [*([of_objects] if of_objects else []), *((each.name,) for each in formats if not each.of_objects)]


def sweep_half_written(exports: Place, formats: Sequence[Format]) -> None:
    """Remove files that a killed process has begun of these formats; only while nobody else writes them."""
    if not (isinstance(exports, Path) and exports.is_dir()):
        return  # what is made for an object store lies among temporary files
    names = [file for each in formats for file in each.files]
    names += SPOOLS if any(each.of_objects for each in formats) else []
    begun = re.compile("|".join(map(_half_written, names)))
    for file in exports.glob(".*.partial*"):
        if begun.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _half_written(name: str) -> str:
    """Pattern of the names that a file has while it is written.

    A COG is made of a plain file, whose name is made of the partial one's in turn; libraries put others beside theirs.
    """
    path, random = Path(name), r"\.[0-9a-f]{32}\.partial"
    beside = ".*" if path.suffix else ""
    return rf"\.+{re.escape(path.stem)}{random}({random})?{re.escape(path.suffix)}{beside}"
