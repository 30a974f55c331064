"""A bound on the time that a process takes to end once its command has ended."""

from __future__ import annotations

import os
import sys
import threading

from flows.lifecycle.exit_status import EXIT_SIGNALLED, exit_status

ENDING_SECONDS = 60.0
"""For what Prefect still has to send, to a server that answers slowly."""
STOPPED_ENDING_SECONDS = 8.0
"""After a signal: with the grace of tiles in flight less than the 30 s that Kubernetes and Slurm give by default."""


def bound_exit() -> None:
    """End this process with its exit status in a while, if threads that Python waits for have not ended by then.

    All of a command's own work is done, recorded and said before; what is left are threads of libraries, which wait for
    a server that is gone, or which an error in the midst of their start has left without an end.
    """
    stopped = exit_status() > EXIT_SIGNALLED
    timer = threading.Timer(STOPPED_ENDING_SECONDS if stopped else ENDING_SECONDS, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(exit_status())
