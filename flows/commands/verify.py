"""`overtile verify`: checks a run's shards, pyramid and labels."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.commands.exit_codes import EXIT_FAILED_TILES
from flows.commands.options import DeviceOption, RayOption, WorkersOption
from flows.config.run import VerifyConfig
from flows.lifecycle.environment import quiet_environment
from flows.reporting.escaping import PlainConsole
from tiling.storage.place import place_of

RunArgument = Annotated[str, typer.Argument(help="A run folder, a path or URL.")]
TilesOption = Annotated[int, typer.Option(min=0, help="Tiles to compute again and compare.")]
SeamsOption = Annotated[int, typer.Option(min=0, help="Places across borders to compute with wider context.")]
SeedOption = Annotated[int, typer.Option(help="Draws the sample; another seed looks elsewhere.")]


def verify_command(
    run: RunArgument,
    tiles: TilesOption = 4,
    seams: SeamsOption = 4,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    ray_address: RayOption = None,
) -> None:
    """Check a run: every shard against its digest, the pyramid, and samples computed again."""
    config = VerifyConfig(
        run=place_of(run),
        tiles=tiles,
        seams=seams,
        seed=seed,
        workers=workers,
        device=device,
        ray_address=ray_address,
    )
    quiet_environment()
    from tiling.runs.foreign_files import sentence, unknown_files
    from tiling.runs.run import Run

    opened = Run.open(config.run)  # refused before anything starts
    from flows.commands.terminal import print_verification, run_with_progress

    out = PlainConsole()
    verdict = run_with_progress(out, "verify", config)
    print_verification(out, verdict)
    if verdict.unfinished:
        out.print(verdict.unfinished, markup=False, highlight=False, soft_wrap=True)
    if message := sentence(unknown_files(opened, thorough=True)):
        out.print(message, markup=False, highlight=False, soft_wrap=True)
    if not verdict.is_sound:
        sys.exit(EXIT_FAILED_TILES)
