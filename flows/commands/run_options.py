"""Options of the command line that say how and where tiles are computed: the same for one image and for an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.config.run import DEVICE_HELP, Device

ModelCardOption = Annotated[
    Path | None, typer.Option(help="Bands, classes and normalisation of a model that is no bundle: TOML or JSON.")
]
CompileOption = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Compile the network; by default where it pays, on a GPU.")
]
ProbabilitiesOption = Annotated[bool, typer.Option("--probabilities", help="Also write probabilities, in 8 bits.")]
HaloOption = Annotated[str, typer.Option(help="exact, or approximate:PX for a network without finite bounds.")]
ExportOption = Annotated[
    str, typer.Option("--export", help="Formats to write at the end: auto (what suits), none, or names with commas.")
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Actors; one per GPU or core by default.")]
StagingOption = Annotated[bool, typer.Option(help="Stage tiles to Zarr, or read the image in the actors.")]
DeviceOption = Annotated[Device, typer.Option(help=DEVICE_HELP)]
RayOption = Annotated[str | None, typer.Option(help="A running Ray cluster; an embedded one by default.")]
UntilOption = Annotated[str | None, typer.Option(metavar="HH:MM", help="Begin no tile after this time of day.")]
BudgetOption = Annotated[str | None, typer.Option(metavar="TIME", help="Begin no tile after so long: 5h, 90m.")]
