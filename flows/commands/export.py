"""`overtile export`: a finished run in formats that others open."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from flows.commands.options import takes
from flows.commands.output import console, print_json
from flows.config.export import ExportConfig
from flows.reporting.escaping import PlainConsole

ListOption = Annotated[bool, typer.Option("--list", help="Show the formats, and write none.")]


@takes(ExportConfig, optional=["run"])
def export_command(*, listed: ListOption = False, **asked: Any) -> None:
    """Write a finished run in formats that others open, such as OME-TIFF, COG and GeoJSON; --list names them all."""
    out = console()
    if listed or "run" not in asked:
        list_formats(out)
        return
    config = ExportConfig.model_validate(asked)
    from flows.run.exports import export_here

    written = export_here(config)
    for place in written:
        out.print(str(place), highlight=False, soft_wrap=True)
    if not written:
        out.print("every export shows the mask already; --force writes them anew", highlight=False)
    print_json({"run": config.run, "files": written})


def list_formats(out: PlainConsole) -> None:
    """Name, files and one line for each format."""
    from tiling.export.formats import FORMATS

    table = Table("format", "below exports/", "what", box=None)
    for each in FORMATS.values():
        table.add_row(each.name, " ".join(each.files), each.what)
    out.print(table)
    print_json({"formats": [{"name": each.name, "files": each.files, "what": each.what} for each in FORMATS.values()]})
