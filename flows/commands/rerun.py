"""`overtile rerun`: single tiles of a run again, or what failed in an archive."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.commands.archive import rerun_archive
from flows.commands.exit_codes import EXIT_USAGE, err
from flows.commands.options import DeviceOption, RayOption, WorkersOption
from flows.commands.run_flow import run_flow
from flows.config.run import RerunConfig
from flows.errors import FlowError
from tiling.storage.place import place_of

RunToRepairArgument = Annotated[str | None, typer.Argument(help="A run folder, a path or URL.")]
ArchiveOption = Annotated[str | None, typer.Option(help="An archive's folder, instead of a run.")]
TileOption = Annotated[list[str] | None, typer.Option("--tile", help="ROW,COL of a tile; may be repeated.")]
FailedOption = Annotated[bool, typer.Option("--failed", help="Every tile that failed.")]
DamagedOption = Annotated[bool, typer.Option("--damaged", help="Every tile that verification found damaged.")]


def rerun_command(
    run: RunToRepairArgument = None,
    archive: ArchiveOption = None,
    tile: TileOption = None,
    failed: FailedOption = False,
    damaged: DamagedOption = False,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    ray_address: RayOption = None,
) -> None:
    """Compute single tiles of a run again, or all failed slides of an archive; no other byte of a mask changes."""
    tiles = tuple(_parse_tile(text) for text in tile or [])
    if (run is None) == (archive is None):
        raise FlowError("a rerun is of one run, or with --archive of an archive; name one of the two")
    if archive is not None:
        if not failed or damaged or tiles:
            raise FlowError("--archive reruns what failed in all its runs; give --failed, and --tile with one run")
        rerun_archive(archive, workers=workers, device=None if device == "auto" else device, ray_address=ray_address)
        return
    assert run is not None
    config = RerunConfig(
        run=place_of(run),
        tiles=tiles,
        failed=failed,
        damaged=damaged,
        workers=workers,
        device=device,
        ray_address=ray_address,
    )
    run_flow("rerun", config)


def _parse_tile(text: str) -> tuple[int, int]:
    row, _, col = text.partition(",")
    if not (row.strip().isdecimal() and col.strip().isdecimal()):
        err.print(f"error: --tile {text!r} names no tile; give ROW,COL, for example --tile 3,12")
        sys.exit(EXIT_USAGE)
    return int(row), int(col)
