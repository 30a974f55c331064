"""The end of a process once its command has ended: with its exit status, and in bounded time."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress

from flows.lifecycle.exit_status import EXIT_SIGNALLED, exit_status, is_recorded

ENDING_SECONDS = 60.0
"""For what Prefect still has to send, to a server that answers slowly."""
STOPPED_ENDING_SECONDS = 8.0
"""After a signal: with the grace of tiles in flight less than the 30 s that Kubernetes and Slurm give by default."""


def exit_without_finalising() -> None:
    """Have this process end as soon as all threads and handlers at exit have; called before any is registered.

    Python would then take the modules apart, which is seconds on a busy machine, while threads of Ray's libraries still
    run in them: a command whose work was done was sometimes reported as ended by a segmentation fault.
    """
    atexit.register(_end_last)  # of the handlers, the first that is registered is called last


def bound_exit() -> None:
    """End this process with its exit status in a while, if threads that Python waits for have not ended by then.

    All of a command's own work is done, recorded and said before; what is left are threads of libraries, which wait for
    a server that is gone, or which an error in the midst of their start has left without an end.
    """
    stopped = exit_status() > EXIT_SIGNALLED
    timer = threading.Timer(STOPPED_ENDING_SECONDS if stopped else ENDING_SECONDS, _end)
    timer.daemon = True
    timer.start()


def _end_last() -> None:
    with suppress(OSError, ValueError):  # of a pipe that nobody reads: Python has its own status and words for it
        if is_recorded():
            _flush()
            os._exit(exit_status())


def _end() -> None:
    with suppress(OSError, ValueError):
        _flush()
    os._exit(exit_status())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
