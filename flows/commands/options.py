"""Options that several commands share: which pixels are segmented, and how and where tiles are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.config.run import DEVICE_HELP, Device

PANEL = "Which pixels"

LevelOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Pyramid level, its pixels as they are; 0 is the finest. By default the model's pixel size decides.",
        rich_help_panel=PANEL,
    ),
]
MppOption = Annotated[
    float | None,
    typer.Option("--mpp", help="Pixel size to segment at, in µm; the model's by default.", rich_help_panel=PANEL),
]
GsdOption = Annotated[float | None, typer.Option("--gsd", help="The same in metres.", rich_help_panel=PANEL)]
ImageMppOption = Annotated[
    float | None,
    typer.Option(
        "--image-mpp",
        help="What a pixel of level 0 measures, in µm, where the image doesn't say or is wrong.",
        rich_help_panel=PANEL,
    ),
]
AsIsOption = Annotated[
    bool, typer.Option("--as-is", help="Take the pixels as they are, whatever they measure.", rich_help_panel=PANEL)
]
BandsOption = Annotated[
    str | None, typer.Option(help="Bands by number from 1 or by name, as 3,2,1 or DAPI,CD8,CD3.", rich_help_panel=PANEL)
]
ZOption = Annotated[int, typer.Option("--z", min=0, help="Focal plane, from 0.", rich_help_panel=PANEL)]
TOption = Annotated[int, typer.Option("--t", min=0, help="Point in time, from 0.", rich_help_panel=PANEL)]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        help="Which image of a file of several, by number from 0 or by name; the largest with a pixel size by default.",
        rich_help_panel=PANEL,
    ),
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        help="Y0,X0,Y1,X1 in pixels of level 0, map:XMIN,YMIN,XMAX,YMAX, or polygons in a .geojson file.",
        rich_help_panel=PANEL,
    ),
]
NormaliseOption = Annotated[
    str | None,
    typer.Option(
        help="Range of values that becomes the model's, the same for every tile: LOW,HIGH or percentiles:1,99.",
        rich_help_panel=PANEL,
    ),
]

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
