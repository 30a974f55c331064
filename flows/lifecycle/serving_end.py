"""The end of serving: SIGTERM ends it as Ctrl-C does, in order and without a traceback."""

from __future__ import annotations

import logging
import signal

import psutil
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from flows.lifecycle.stopping import GRACE_SECONDS

ENDING_SECONDS = GRACE_SECONDS + 10.0


def serve_until_stopped(*deployments: RunnerDeployment) -> None:
    """Serve, and then let the flows that run end as calmly as if they had been stopped themselves."""
    logging.getLogger("prefect.flows").setLevel(logging.WARNING)  # it names an exception that nobody raised
    Runner.handle_sigterm = _as_ctrl_c
    try:
        serve(*deployments, pause_on_shutdown=False, print_starting_message=False)
    finally:
        _end_flows()


def _as_ctrl_c(self: Runner, *_: object) -> None:
    """Prefect's own handler forgets to wait for what it begins, and Python warns of it.

    Raises:
        KeyboardInterrupt: Ctrl-C is ignored, as it is in what a shell's script starts in the background.
    """
    del self
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _end_flows() -> None:
    """Stop what the runner leaves running: each flow stops as on SIGTERM, and the next night resumes it."""
    left = [child for child in psutil.Process().children() if _is_flow(child)]
    for child in left:
        child.terminate()
    _, alive = psutil.wait_procs(left, ENDING_SECONDS)
    for child in alive:
        child.kill()


def _is_flow(process: psutil.Process) -> bool:
    try:
        return any("prefect.engine" in part or "prefect.flow_engine" in part for part in process.cmdline())
    except psutil.Error:
        return False
