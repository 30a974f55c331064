"""`overtile export`: a finished run in formats that others open."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from flows.reporting.escaping import PlainConsole

FormatOption = Annotated[
    list[str] | None,
    typer.Option("--format", help="A format's name, or several with commas; may be repeated. What suits by default."),
]


def export_command(
    run: Annotated[str | None, typer.Argument(help="A run folder, a path or URL.")] = None,
    formats: FormatOption = None,
    again: Annotated[bool, typer.Option("--again", help="Write also what shows the mask already.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a writer; one per core by default.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the formats.")] = False,
) -> None:
    """Write a finished run as OME-TIFF, COG, GeoJSON, GeoPackage, GeoParquet or statistics."""
    console = PlainConsole()
    if listed or run is None:
        list_formats(console)
        return
    from flows.config.export import ExportConfig
    from tiling.export.formats import AUTO
    from tiling.storage.place import place_of

    config = ExportConfig(run=place_of(run), formats=",".join(formats or [AUTO]), again=again, threads=threads)
    from flows.run.exports import export_here

    written = export_here(config)
    for place in written:
        console.print(str(place), highlight=False, soft_wrap=True)
    if not written:
        console.print("every export shows the mask already; --again writes them anew", highlight=False)


def list_formats(console: PlainConsole) -> None:
    """Name, files and one line for each format."""
    from tiling.export.formats import FORMATS

    table = Table("format", "below exports/", "what", box=None)
    for each in FORMATS.values():
        table.add_row(each.name, " ".join(each.files), each.what)
    console.print(table)
