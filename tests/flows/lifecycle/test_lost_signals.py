"""A signal whose error Python drops, since it is raised where nobody can catch it: it ends the command all the same."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from cli import hear_signals

COMMAND = """
import gc, signal, sys, time, weakref
from contextlib import nullcontext
from flows.commands.exit_codes import one_line_errors

number, place, by = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if by == "prefect":
    from prefect.utilities.engine import capture_sigterm as inside
else:
    inside = nullcontext

def heard(*_):
    signal.raise_signal(number)

class Thing:
    pass

class Finalised(Thing):
    __del__ = heard

with one_line_errors(), inside():
    if place == "a finaliser":
        Finalised()
    elif place == "a collected cycle":
        thing = Finalised()
        thing.itself = thing
        del thing
        gc.collect()
    else:
        thing = Thing()
        reference = weakref.ref(thing, heard)
        del thing
    time.sleep(30)
    print("worked on")
"""


@pytest.mark.parametrize("place", ["a finaliser", "a collected cycle", "a callback of a weak reference"])
@pytest.mark.parametrize(
    ("number", "by", "code", "message"),
    [
        (signal.SIGTERM, "", 143, "error: stopped by SIGTERM; the same command resumes"),
        (signal.SIGHUP, "", 129, "error: stopped by SIGHUP; the same command resumes"),
        (signal.SIGINT, "", 130, "stopped; the same command resumes"),
        (signal.SIGTERM, "prefect", 143, "error: stopped by SIGTERM; the same command resumes"),
    ],
)
def test_it_ends_the_command(place: str, number: signal.Signals, by: str, code: int, message: str) -> None:
    command = [sys.executable, "-c", COMMAND, str(int(number)), place, by]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=hear_signals)
    assert (ended.returncode, ended.stderr.strip(), ended.stdout) == (code, message, "")


LOUD = """
from flows.commands.exit_codes import one_line_errors

class Loud:
    def __del__(self):
        raise ValueError("of its own")

with one_line_errors():
    Loud()
"""


def test_other_dropped_errors_are_printed_as_ever() -> None:
    ended = subprocess.run([sys.executable, "-c", LOUD], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert "ValueError: of its own" in ended.stderr
