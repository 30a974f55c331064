"""SIGTERM while Ray starts: a handler that Ray puts in place of the process's own is gone at once, not at the end."""

from __future__ import annotations

import signal
import subprocess
import sys

STARTING = """
import ctypes, signal, time
from flows.commands.exit_codes import one_line_errors
from flows.lifecycle.stopping import keep_sigterm

libc = ctypes.CDLL(None)

def installed():
    action = ctypes.create_string_buffer(512)
    libc.sigaction(signal.SIGTERM, None, action)
    return action.raw[:8]

with one_line_errors():
    own = installed()
    with keep_sigterm():
        libc.signal(signal.SIGTERM, None)  # as Ray's code does, past Python: the default, which ends the process
        deadline = time.monotonic() + 10
        while installed() != own and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(10)  # Ray goes on starting
"""


def test_it_is_heard_while_ray_still_starts() -> None:
    command = [sys.executable, "-c", STARTING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    message = "error: stopped by SIGTERM; the same command resumes"
    assert (ended.returncode, ended.stderr.strip()) == (128 + signal.SIGTERM, message)
