"""A command that is stopped at random moments of its life: it ends soon, with the signal's status and one line."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli import OVERTILE, Cli, hear_signals, mask_files
from tiny import save_tiny, write_noise

MOMENTS, SEED = 40, 1
SIDE, CORE = 1536, 64
ENDING_SECONDS = 60.0
STATUS = {
    signal.SIGTERM: (143, "error: stopped by SIGTERM; the same command resumes\n"),
    signal.SIGHUP: (129, "error: stopped by SIGHUP; the same command resumes\n"),
    signal.SIGINT: (130, "stopped; the same command resumes\n"),
}
BEFORE = {signal.SIGTERM: (-15, ""), signal.SIGHUP: (-1, ""), signal.SIGINT: (130, "stopped before it began\n")}
"""Of a command that hasn't loaded anything that listens for signals yet: nothing has begun."""


def without_core() -> None:
    hear_signals()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.mark.soak
def test_a_command_that_is_stopped_at_any_moment_says_so_and_resumes(cli: Cli, tmp_path: Path) -> None:
    image, model = write_noise(tmp_path / "noise.tif", SIDE, SIDE), save_tiny(tmp_path / "tiny")
    options = ("--model", model, "--core", CORE, "--foreground", "none", "--workers", 1)
    command = ["segment", str(image), *map(str, options), "--out"]
    begun = time.monotonic()
    assert cli.run(*command, tmp_path / "undisturbed", timeout=400).code == 0
    life, choice, seen = time.monotonic() - begun, random.Random(SEED), dict[str, int]()
    folder = tmp_path / "run"
    for number in range(MOMENTS):
        at, sent = choice.uniform(0.3, life), choice.choice([*STATUS])
        if choice.random() < 0.3:
            shutil.rmtree(folder, ignore_errors=True)
        code, said = stopped([str(OVERTILE), *command, str(folder)], cli, at, sent)
        in_flight = STATUS[sent][0], f"error: stopped by {sent.name}; the same command resumes\n"
        known = STATUS[sent], in_flight, BEFORE[sent], (0, "")
        assert (code, said) in known, f"moment {number}: {sent.name} after {at:.2f} s"
        kind = "done before" if code == 0 else "before it listened" if (code, said) == BEFORE[sent] else sent.name
        seen[kind] = seen.get(kind, 0) + 1
        if code == 0:
            shutil.rmtree(folder)  # of what is complete there is nothing more to stop
    assert sum(seen.get(sent.name, 0) for sent in STATUS) >= MOMENTS // 2, seen
    assert cli.run(*command, folder, timeout=400).code == 0
    assert mask_files(folder) == mask_files(tmp_path / "undisturbed")


def stopped(command: list[str], cli: Cli, at: float, sent: signal.Signals) -> tuple[int, str]:
    """The exit status of a command that gets a signal after so many seconds, and all that it says of it."""
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    driver = subprocess.Popen(
        command, env=cli.environment, stdout=quiet, stderr=pipe, text=True, preexec_fn=without_core
    )
    try:
        _, said = driver.communicate(timeout=at)
    except subprocess.TimeoutExpired:
        driver.send_signal(sent)
        try:
            _, said = driver.communicate(timeout=ENDING_SECONDS)
        finally:
            driver.kill()
    return driver.returncode, said
