"""The viewer's server: on this machine's own address only, and there for whoever has its link."""

from __future__ import annotations

import asyncio
import html
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from flows.errors import FlowError
from flows.viewer.door import Door
from flows.viewer.library import Library
from flows.viewer.site import make_site

ADDRESS = "127.0.0.1"


class PortError(FlowError):
    """A port that can't be listened on."""


def serve(library: Library, port: int, announce: Callable[[str], None], *, browse: bool) -> None:
    """Show the runs until somebody stops it with Ctrl-C or SIGTERM.

    Args:
        library: what is shown.
        port: to listen on; 0 takes a free one.
        announce: receives the link, once it answers.
        browse: open the person's browser on it.

    Raises:
        PortError: the port is taken or not allowed.
    """
    door = Door()
    with _listen(port) as listening, ExitStack() as stack:
        address = f"http://{ADDRESS}:{listening.getsockname()[1]}/"
        config = uvicorn.Config(
            make_site(library, door), log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=5
        )
        link = door.link(address)
        announce(link)
        if browse:
            page = stack.enter_context(_leading_to(link))
            threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except asyncio.CancelledError as error:  # of two signals before the server listens for any
            raise KeyboardInterrupt from error


@contextmanager
def _leading_to(link: str) -> Generator[Path]:
    """A page of this account alone that leads to the link: any account sees what a browser is started with."""
    handle, name = tempfile.mkstemp(prefix="overtile-view-", suffix=".html")
    page = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            there = html.escape(link)
            stream.write(
                '<!doctype html><meta charset="utf-8"><title>overtile</title>'
                '<meta name="referrer" content="no-referrer">'
                f'<meta http-equiv="refresh" content="0; url={there}"><p><a href="{there}">Go on to the page</a></p>\n'
            )
        yield page
    finally:
        page.unlink(missing_ok=True)


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
    except OSError as error:
        listening.close()
        raise PortError(
            f"port {port} of {ADDRESS} can't be listened on ({error.strerror}): the page would have no address; give "
            f"another --port, or none for a free one"
        ) from error
    listening.listen(128)  # the address answers, if late, as soon as it is announced
    return listening
