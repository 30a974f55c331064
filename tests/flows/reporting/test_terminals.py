"""Bars where a person's terminal is, plain lines in a notebook's cell, a dumb terminal and a pipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from terminals import in_terminal

from flows.reporting.terminals import in_kernel, is_live

CHILD = """
import time
from flows.commands import lines
from flows.commands.terminal import shown_progress
from flows.reporting.escaping import PlainConsole
from flows.reporting.progress import Progress
from flows.reporting.progress_line import ProgressLine
lines.BEAT_SECONDS = 0.3
with shown_progress(PlainConsole()) as show:
    for done in range(1, 6):
        show(Progress("segment", done, 5))
        time.sleep(0.15)
with ProgressLine() as line:
    line.on_progress(Progress("segment", 1, 2))
print("ended")
"""
ROOT = Path(__file__).parents[3]
HIDES_THE_CURSOR = "\x1b[?25l"


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("child") / "child.py"
    script.write_text(CHILD)
    return script


def environment(**more: str) -> dict[str, str]:
    dropped = {"TERM", "FORCE_COLOR", "JPY_PARENT_PID", "MPLBACKEND"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def expect_lines(text: str) -> None:
    """Lines alone, one heartbeat at least, and nothing that moves a cursor."""
    assert "\x1b" not in text
    assert "\r" not in text.replace("\r\n", "\n"), "a terminal ends its lines with both"
    assert "segment: " in text
    assert len(text.splitlines()) < 10
    assert text.splitlines()[-1] == "ended"


def test_a_terminal_gets_a_bar(child: Path) -> None:
    assert HIDES_THE_CURSOR in in_terminal([sys.executable, str(child)], environment(TERM="xterm-256color"))[1]


def test_a_dumb_terminal_gets_lines(child: Path) -> None:
    expect_lines(in_terminal([sys.executable, str(child)], environment(TERM="dumb"))[1])


def test_colours_that_are_forced_make_no_terminal_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-color")
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as stream:
        assert not is_live(stream)
    assert not is_live(stream)  # closed


@pytest.mark.parametrize(
    ("variables", "is_one"),
    [
        ({"JPY_PARENT_PID": "7"}, True),
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, True),
        ({"MPLBACKEND": "agg", "FORCE_COLOR": "1"}, False),
        ({}, False),
    ],
)
def test_kernels_are_known_by_what_they_set(variables: dict[str, str], is_one: bool) -> None:
    assert in_kernel(variables) == is_one


def test_a_command_in_a_cell_of_a_real_notebook_writes_lines(child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cell = nbformat.v4.new_code_cell(f"!{sys.executable} {child}")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    expect_lines("".join(output["text"] for output in notebook.cells[0].outputs))
