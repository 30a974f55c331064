"""`overtile rerun`: single tiles of a run again, or what failed in an archive."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands.archive import rerun_archive
from flows.commands.options import takes
from flows.commands.run_and_report import run_and_report
from flows.config.run import MachineOptions, RerunConfig
from flows.errors import FlowError
from flows.reporting.escaping import PlainConsole

ArchiveOption = Annotated[str | None, typer.Option(help="An archive's folder, instead of a run.")]


@takes(RerunConfig, optional=["run"])
def rerun_command(*, archive: ArchiveOption = None, **asked: Any) -> None:
    """Compute single tiles of a run again, or all failed slides of an archive; no other byte of a mask changes."""
    if ("run" in asked) == (archive is not None):
        raise FlowError("a rerun is of one run, or with --archive of an archive; name one of the two")
    if archive is None:
        config = RerunConfig.model_validate(asked)
        if not _says_that_none_failed(config):
            run_and_report("rerun", config)
        return
    if not asked["failed"] or asked["damaged"] or "tiles" in asked:
        raise FlowError("--archive reruns what failed in all its runs; give --failed, and --tile with one run")
    machine = MachineOptions.model_validate(
        {name: asked[name] for name in MachineOptions.model_fields if name in asked}
    )
    rerun_archive(archive, **machine.model_dump(exclude_defaults=True))


def _says_that_none_failed(config: RerunConfig) -> bool:
    """Whether only failed tiles were asked for and the run is complete: then nothing starts, and that is said."""
    if config.tiles or config.damaged or not config.failed:
        return False
    from tiling.runs.run import Run

    run = Run.open(config.run)
    if not run.ledger.fold().is_complete:
        return False
    PlainConsole().print(f"no tile of {run.path} failed: nothing to compute again", soft_wrap=True)
    return True
