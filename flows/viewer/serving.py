"""The viewer's server: on this machine's own address only."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from flows.errors import FlowError
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
        announce: is told the address, once it answers.
        browse: open the person's browser on it.

    Raises:
        PortError: the port is taken or not allowed.
    """
    with _listen(port) as listening:
        address = f"http://{ADDRESS}:{listening.getsockname()[1]}/"
        config = uvicorn.Config(
            make_site(library), log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=5
        )
        announce(address)
        if browse:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        uvicorn.Server(config).run(sockets=[listening])


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
