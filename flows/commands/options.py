"""Options of the command line that say which pixels of an image are segmented."""

from __future__ import annotations

from typing import Annotated

import typer

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
