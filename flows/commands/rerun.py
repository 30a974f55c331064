"""`overtile rerun`: single tiles of a run again, or what failed in an archive."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from flows.commands.archive import rerun_archive
from flows.commands.facts import outcome_facts
from flows.commands.options import RunOrArchive, takes
from flows.commands.output import console, output, print_json
from flows.commands.run_and_report import run_and_report
from flows.config.run import MachineOptions, RerunConfig
from flows.errors import FlowError
from tiling.storage.place import place_of

FormerOption = Annotated[bool, typer.Option("--archive", hidden=True)]
"""A word that was asked for before an archive's folder; the folder says itself what it is."""


@takes(RerunConfig)
def rerun_command(*, run: RunOrArchive, is_archive: FormerOption = False, **asked: Any) -> None:
    """Compute tiles of a run again, or an archive's failed slides with --failed; no other byte of a mask changes."""
    if not (is_archive or holds_archive(run)):
        config = RerunConfig.model_validate({**asked, "run": run})
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
    rerun_archive(run, **machine.model_dump(exclude_defaults=True))


def holds_archive(place: str) -> bool:
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
