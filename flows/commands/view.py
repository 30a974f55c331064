"""`overtile view`: a run, or an archive of runs, as a page in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import RunOrArchive
from flows.commands.output import console

PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; a free one by default.")]
BrowserOption = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser on it.")]


def view_command(place: RunOrArchive, port: PortOption = 0, browser: BrowserOption = True) -> None:
    """Look at a run, an archive or any folder of runs in the browser; failed tiles can be rerun there."""
    from flows.viewer.library import Library
    from flows.viewer.serving import serve
    from tiling.storage.place import place_of

    out = console()
    library = Library(place_of(place))

    def announce(link: str) -> None:
        out.print(f"showing {library.place} at {link} for whoever has this link; Ctrl-C ends it", soft_wrap=True)

    try:
        serve(library, port, announce, browse=browser)
    except KeyboardInterrupt:
        out.print("ended; the runs are as they were")
