"""A command that has ended, whose process waits for a library's thread: it ends with the command's exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDED = """
import sys, threading
from flows.lifecycle import bounded_exit
bounded_exit.ENDING_SECONDS = bounded_exit.STOPPED_ENDING_SECONDS = 0.5
from flows import cli, entry

def app():
    print("the last word")
    threading.Thread(target=threading.Event().wait).start()
    sys.exit(int(sys.argv[1]))

cli.app = app
entry.main()
"""


@pytest.mark.parametrize("status", [0, 3, 143])
def test_a_thread_that_nobody_ends_keeps_no_command_from_ending(status: int) -> None:
    command = [sys.executable, "-c", ENDED, str(status)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "the last word\n", "")
