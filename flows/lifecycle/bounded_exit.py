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


def end_process() -> None:
    """End this process with its command's exit status once its threads and its handlers at exit have ended.

    Python would then take the modules apart, which is seconds on a busy machine, while threads of Ray's libraries still
    run in them: a command whose work was done was sometimes reported as ended by a segmentation fault.

    All of a command's own work is done, recorded and said before; what is left are threads of libraries. Some wait for
    a server that is gone, or an error in the midst of their start has left them without an end: so in bounded time.

    Returns where no status is recorded, or output is lost: Python has its own statuses and words for these.
    """
    if not is_recorded():
        return
    stopped = exit_status() > EXIT_SIGNALLED
    timer = threading.Timer(STOPPED_ENDING_SECONDS if stopped else ENDING_SECONDS, end_at_once)
    timer.daemon = True
    timer.start()
    with suppress(KeyboardInterrupt):  # once more: what is waited for is left
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  # as Python's own end begins
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    with suppress(OSError, ValueError):  # of a pipe that nobody reads
        _flush()
        os._exit(exit_status())


def end_at_once() -> None:
    """End this process with its command's exit status: no thread is waited for, no handler at exit is called."""
    with suppress(OSError, ValueError):
        _flush()
    os._exit(exit_status())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
