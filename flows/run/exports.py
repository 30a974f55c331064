"""Exports as the command line and the end of a segmentation ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.pool.cores import usable_threads
from flows.run.changed_image import drawn_of_one_image
from flows.run.objects import number_where_needed
from tiling.errors import ExportError
from tiling.export.export_run import export_run
from tiling.export.formats import COG, FORMATS, NONE, Format
from tiling.runs.ledger import LedgerState
from tiling.runs.run import Run
from tiling.storage.place import Place, lock_run
from tiling.storage.task_map import TaskMap

if TYPE_CHECKING:
    from flows.config.export import ExportConfig
    from tiling.source import ImageSource


def export_here(config: ExportConfig) -> list[Place]:
    """Write what was asked for and doesn't show the mask yet, in this process; returns all files that were written.

    Raises:
        RunError: another driver is at work on the run.
        ImageChangedError: the image isn't the run's any more.
        ExportError: the run isn't finished, or a format can't say what it is.
    """
    run = Run.open(config.run)
    with lock_run(run.path), drawn_of_one_image(run) as source:
        run.sweep()
        state, threads = run.ledger.fold(held=True), threads_of(config.threads)
        wanted = config.formats if config.split is None else _with_mask(config.formats, run, source)
        number_where_needed(run, state, wanted, threads)
        written = export_run(run, source, wanted, state, again=config.again, threads=threads)
        parts = [] if config.split is None else _split(run, source, config.split, threads)
    return [*(run.exports / file for each in written for file in each.files), *parts]


def _with_mask(formats: str, run: Run, source: ImageSource) -> str:
    """The formats with the one that is split, once it is known that it can be.

    Raises:
        ExportError: the image has no parts, or the run lies in an object store.
    """
    from tiling.export.split import expect_parts

    expect_parts(source)
    if not isinstance(run.exports, Path):
        raise ExportError(f"{run.path} lies in an object store, and --split cuts files on a disk: copy the run to one")
    return COG if formats == NONE else f"{formats},{COG}"


def _split(run: Run, source: ImageSource, folder: Path, threads: int) -> list[Path]:
    from tiling.export.split import write_split

    assert isinstance(run.exports, Path)
    return [*write_split(run.exports / FORMATS[COG].files[0], source, folder, threads)]


def export_all(
    run: Run, source: ImageSource, wanted: str, state: LedgerState, tasks: TaskMap | None = None
) -> list[Format]:
    """For a flow that holds the run: what is wanted, and what was exported before and no longer shows the mask.

    A run of which some tiles were computed, and others are still to do, has nothing to export. `tasks` write files in
    other processes.
    """
    if not state.is_closed:
        return []
    return export_run(run, source, wanted, state, threads=threads_of(None), tasks=tasks)


def threads_of(asked: int | None) -> int:
    """All cores when not given."""
    return asked or usable_threads()
