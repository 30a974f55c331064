"""Exit codes: errors that count as wrong usage, and errors of the environment."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from cli import hear_signals

from flows.commands.exit_codes import one_line_errors
from flows.errors import ClusterLostError, PoolError
from tiling.errors import DiskError, ExportError, SourceError, StagingError, WritingError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SourceError("no image"), 2),
        (PoolError("no cluster"), 2),
        (ExportError("no map"), 2),
        (DiskError("full"), 1),
        (StagingError("full"), 1),
        (WritingError("full"), 1),
        (ClusterLostError("gone"), 1),
        (OSError("broken"), 1),
    ],
)
def test_a_full_disk_and_a_lost_cluster_are_no_wrong_usage(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise error
    assert ended.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_prefects_own_event_loop_says_nothing_in_a_commands_terminal() -> None:
    setup = "from prefect.logging.configuration import setup_logging; setup_logging(); import logging"
    asked = "print(logging.getLogger('prefect._internal.concurrency').getEffectiveLevel())"
    program = f"from flows.lifecycle.environment import quiet_environment; quiet_environment(); {setup}; {asked}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert int(ended.stdout) == logging.CRITICAL


INTERRUPTED_WHILE_LOADING = """
import builtins, os, signal
from flows.entry import main
load = builtins.__import__

def interrupted(name, *rest):
    if name == "typer":
        os.kill(os.getpid(), signal.SIGINT)
    return load(name, *rest)

builtins.__import__ = interrupted
main()
"""


def test_ctrl_c_while_the_commands_load_leaves_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING],
        preexec_fn=hear_signals,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (130, "stopped before it began\n")
