"""A command that has ended, whose process waits for a library's thread: it ends with the command's exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDED = """
import os, signal, sys, threading
from flows.lifecycle import bounded_exit
bounded_exit.ENDING_SECONDS = bounded_exit.STOPPED_ENDING_SECONDS = 0.5
from flows import cli, entry

class Library:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGSEGV)

library = Library() if sys.argv[2] == "code" else None

def app():
    print("the last word")
    if sys.argv[2] == "a thread":
        threading.Thread(target=threading.Event().wait).start()
    sys.exit(int(sys.argv[1]))

cli.app = app
entry.main()
"""


@pytest.mark.parametrize("what", ["a thread", "code"])
@pytest.mark.parametrize("status", [0, 3, 143])
def test_what_libraries_leave_behind_changes_no_exit_status(status: int, what: str) -> None:
    """A thread that nobody ends, and code that dies of being taken apart."""
    command = [sys.executable, "-c", ENDED, str(status), what]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "the last word\n", "")


def test_output_that_is_lost_has_pythons_own_status() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-c", ENDED, "0", "nothing"]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        ended = subprocess.run(
            command, env=buffered, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert ended.returncode == 120
    assert "No space left on device" in ended.stderr
