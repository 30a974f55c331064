"""`overtile rerun`: single tiles of a run again, or what failed in an archive."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands.archive import rerun_archive
from flows.commands.options import takes
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
        run_and_report("rerun", RerunConfig.model_validate(asked))
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
    """Whether a folder is an archive's."""
    return (place_of(place) / "archive.json").is_file()
