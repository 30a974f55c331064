"""Signals while libraries load: each waits until its error can be raised where somebody catches it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from cli import hear_signals

LOADING = """
import signal, sys
from flows.commands.exit_codes import one_line_errors
from flows.lifecycle import held_signals as held
from flows.lifecycle.held_signals import held_signals

number = int(sys.argv[1])
held.HELD_SECONDS = 0.05 if "long" in sys.argv else 60.0
with one_line_errors():
    with held_signals():
        signal.raise_signal(number)
        print("loaded", flush=True)
        if "twice" in sys.argv:
            signal.raise_signal(number)
            print("not stopped", flush=True)
        while "long" in sys.argv:
            pass
    print("not stopped", flush=True)
"""


def run(*arguments: object, ignored: bool = False) -> tuple[int, str, str]:
    """The status and the words of the script in a process that hears signals, or ignores SIGHUP."""

    def prepare() -> None:
        hear_signals()
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = [sys.executable, "-c", LOADING, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=prepare)
    return ended.returncode, ended.stdout, ended.stderr.strip()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (signal.SIGTERM, "error: stopped by SIGTERM; the same command resumes"),
        (signal.SIGINT, "stopped; the same command resumes"),
    ],
)
def test_a_signal_waits_until_all_is_loaded(sent: signal.Signals, said: str) -> None:
    assert run(int(sent)) == (128 + sent, "loaded\n", said)


@pytest.mark.parametrize("how", ["twice", "long"])
def test_a_second_one_waits_for_nothing_nor_does_one_that_has_waited_long(how: str) -> None:
    assert run(int(signal.SIGINT), how) == (130, "loaded\n", "stopped; the same command resumes")


def test_what_is_ignored_stays_so() -> None:
    assert run(int(signal.SIGHUP), ignored=True) == (0, "loaded\nnot stopped\n", "")
