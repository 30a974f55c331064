"""`overtile rerun`: single tiles of a run again, or what failed in an archive."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from flows.commands.archive import rerun_archive
from flows.commands.facts import outcome_facts
from flows.commands.options import takes
from flows.commands.output import console, output, print_json
from flows.commands.run_and_report import run_and_report
from flows.config.run import MachineOptions, RerunConfig
from flows.errors import FlowError
from tiling.storage.place import place_of

ArchiveOption = Annotated[
    str | None, typer.Option(metavar="ARCHIVE", help="An archive's folder, instead of a run.", hidden=True)
]


@takes(RerunConfig, optional=["run"])
def rerun_command(*, archive: ArchiveOption = None, **asked: Any) -> None:
    """Compute single tiles of a run again, or all failed slides of an archive; no other byte of a mask changes."""
    if ("run" in asked) == (archive is not None):
        raise FlowError("a rerun is of one run or of one archive: give its folder")
    if archive is None and not is_archive(asked["run"]):
        config = RerunConfig.model_validate(asked)
        if not _says_that_none_failed(config):
            run_and_report("rerun", config)
        return
    if not asked["failed"] or asked["damaged"] or "tiles" in asked:
        raise FlowError(
            "of an archive all that failed in its runs is computed again; give --failed, and --tile of one run"
        )
    machine = MachineOptions.model_validate(
        {name: asked[name] for name in MachineOptions.model_fields if name in asked}
    )
    rerun_archive(archive or asked["run"], **machine.model_dump(exclude_defaults=True))


def is_archive(place: str) -> bool:
    """True if a folder is an archive's."""
    return (place_of(place) / "archive.json").is_file()


def _says_that_none_failed(config: RerunConfig) -> bool:
    """True if only failed tiles were asked for and the run is complete: then nothing starts, and that is said."""
    if config.tiles or config.damaged or not config.failed:
        return False
    from tiling.runs.run import Run

    run = Run.open(config.run)
    state = run.ledger.fold()
    if not state.is_complete:
        return False
    console().print(f"no tile of {run.path} failed: nothing to compute again", soft_wrap=True)
    if output().is_json:
        from flows.run.steps import summarise

        print_json(outcome_facts(summarise(run, time.monotonic(), state)))
    return True
