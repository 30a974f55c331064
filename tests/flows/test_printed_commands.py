"""Commands that are printed, pasted from another folder into a shell that has nothing."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from cli import OVERTILE
from drawn import draw_run
from nights import archive_at
from terminals import in_terminal
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.program import unlike_name
from flows.run.custom_model import absolute
from tiling.archives.slide_record import SlideRecord, SlideState

AWKWARD = "-it's a $HOME `run`"
NOTHING = {"PATH": "/usr/bin:/bin"}


def test_at_a_terminal_a_command_that_no_shell_would_find_comes_with_the_program(tmp_path: Path) -> None:
    archive = archive_at(tmp_path / AWKWARD)
    archive.ledger.append(SlideRecord("a.svs", SlideState.FAILED, "slides/a.svs", 10, "v1", "cut off", night="n1"))
    archive.ledger.flush()
    bare = {**NOTHING, "HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "400"}
    code, shown = in_terminal([str(OVERTILE), "doctor", "--archive", AWKWARD], bare, tmp_path)
    assert code == 3, shown
    (called,) = re.findall(r"\(overtile in such a command is (.*) here\)", shown)
    assert shlex.split(called) == [str(OVERTILE)]


def test_the_program_is_named_where_its_name_leads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, other = tmp_path / "a b" / "overtile", tmp_path / "other" / "overtile"
    for each in (program, other):
        each.parent.mkdir()
        each.write_text("#!/bin/sh\n")
        each.chmod(0o755)
    for path, called in (
        (program.parent, ""),
        (other.parent, shlex.quote(str(program))),
        ("", shlex.quote(str(program))),
    ):
        monkeypatch.setenv("PATH", str(path))
        assert unlike_name(str(program)) == called
    assert unlike_name("-c") == ""


def test_an_exported_bundle_is_named_so_that_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, ["models", "export", "vessels", "-o", f"./{AWKWARD}"])
    assert ended.exit_code == 0
    (command,) = re.findall(r"overtile models import (.*) --out NEW", ended.stdout)
    listed = subprocess.run(
        ["/bin/sh", "-c", f"ls {command}"], env=NOTHING, cwd="/", capture_output=True, text=True, check=True
    )
    assert "model.json" in listed.stdout


def test_a_model_is_kept_by_a_path_that_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "nuclei").mkdir()
    (tmp_path / "net.onnx").touch()
    assert absolute("mine") == str(tmp_path / "mine")
    assert absolute("net.onnx") == str(tmp_path / "net.onnx"), "also a file: the next night may begin elsewhere"
    assert absolute("nuclei") == "nuclei", "a shipped name wins over a folder"
    assert absolute("hf:lab/net@0") == "hf:lab/net@0"


def test_a_status_names_the_rerun_with_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_run(tmp_path / AWKWARD, failed={(1, 1): "it broke"})
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["status", f"./{AWKWARD}"]).stdout
    (command,) = (line[line.index("overtile rerun") :] for line in shown.splitlines() if "overtile rerun" in line)
    assert shlex.split(command) == ["overtile", "rerun", str(tmp_path / AWKWARD), "--failed"]
