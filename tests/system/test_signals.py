"""What a terminal sends to all processes of a command: Ctrl-C, and the hangup when it is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import OVERTILE, Cli, clean_environment, hear_signals, mask_files
from tiny import save_tiny, write_noise

STOPPED = "error: stopped by SIGHUP; the same command resumes"
WAITING = """
import os, signal, sys, time
from flows.commands.exit_codes import one_line_errors
from flows.lifecycle.stopping import stop_on_signals
with one_line_errors():
    {inside}
"""


def started(inside: str, before: Callable[[], None] = hear_signals) -> subprocess.Popen[str]:
    """A process that stands in one of the places where a command hears signals, and has said so."""
    command, pipe = [sys.executable, "-c", WAITING.format(inside=inside)], subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=before)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


ANYWHERE = "print('here', flush=True); time.sleep(60)"
INFERRING = "with stop_on_signals() as stop:\n        print('here', flush=True); time.sleep(2); print(stop.by.name)"


@pytest.mark.parametrize(("inside", "code", "message"), [(ANYWHERE, 129, STOPPED), (INFERRING, 0, "")])
def test_a_closed_terminal_is_a_wish_to_stop(inside: str, code: int, message: str) -> None:
    process = started(inside)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (code, message)
    assert out.strip() == ("" if message else "SIGHUP")


STARTING = """
    from flows.pool.cluster import Cluster
    cluster = Cluster(1, None, 'cpu', lambda: None)
    cluster.begin()
    cluster._started.wait()
    print('here', flush=True)
    time.sleep(5)
"""


def test_sigterm_while_ray_starts_beside_the_main_thread_is_heard_as_ever() -> None:
    """Nobody has come to wait for Ray yet, and its own handlers are in nobody's way."""
    process = started(STARTING.strip())
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert (process.returncode, err.strip()) == (143, STOPPED.replace("SIGHUP", "SIGTERM"))


def ignore_hangups() -> None:
    """As nohup leaves them to what it starts."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_under_nohup_a_command_works_on() -> None:
    inside = "print('here', flush=True); time.sleep(1); print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    process = started(inside, ignore_hangups)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "True", "")


def test_words_to_a_terminal_that_is_gone_end_nothing(tmp_path: Path) -> None:
    """The last words of a calm end go nowhere, and what comes after them is still done."""
    ended = tmp_path / "ended"
    inside = f"""
    with stop_on_signals() as stop:
        print('here', flush=True)
        while stop.by is None:
            time.sleep(0.05)
        print('tiles in flight end', flush=True)
    open({str(ended)!r}, 'w').close()
"""
    master, terminal = pty.openpty()
    in_terminal = ["sh", "-c", f'exec "$@" <>{os.ttyname(terminal)} >&0 2>&0', "sh"]
    command = [*in_terminal, sys.executable, "-c", WAITING.format(inside=inside.lstrip())]
    process = subprocess.Popen(
        command, start_new_session=True, preexec_fn=hear_signals
    )  # whose terminal is the first that it opens
    assert os.read(master, 100).split() == [b"here"]
    os.close(terminal)
    os.close(master)
    assert process.wait(60) == 0
    assert ended.is_file()


@pytest.mark.soak
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_what_a_terminal_sends_to_all_stops_calmly_and_resumes(
    cli: Cli, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """Ray's and Prefect's processes are of the same group; none of them ends before the driver."""
    image, model = write_noise(tmp_path / "noise.tif", 1024, 1024), save_tiny(tmp_path / "tiny")
    options = ("--model", model, "--core", 64, "--foreground", "none", "--workers", 1, "--out")
    command = [str(OVERTILE), "segment", str(image), *map(str, options), str(tmp_path / "run")]
    environment, log = clean_environment(tmp_path / "home"), tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True, preexec_fn=hear_signals
        )
    _wait(lambda: sum(1 for _ in (tmp_path / "run").glob("mask.ome.zarr/0/c/*/[0-9]*")) > 20)
    os.killpg(process.pid, sent)
    assert process.wait(90) == code
    assert "can't be reached" not in log.read_text()
    assert "Traceback" not in log.read_text()
    whole = cli.run("segment", image, *options, tmp_path / "whole")
    resumed = cli.run("segment", image, *options, tmp_path / "run")
    assert (whole.code, resumed.code) == (0, 0), resumed.err
    assert mask_files(tmp_path / "run") == mask_files(tmp_path / "whole")


def _wait(is_so: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
