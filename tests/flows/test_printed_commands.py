"""Commands that are printed, pasted from another folder into a shell that has nothing."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from cli import OVERTILE
from drawn import draw_run
from nights import archive_at
from past_nights import begun
from pasting import paste, paste_until
from safetensors.torch import save_file
from terminals import in_terminal
from tiny import save_tiny, write_noise
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.archive import last_config
from flows.commands.program import unlike_name
from flows.doctor.nights import check_nights
from flows.reporting.report import render_report
from flows.run.custom_model import absolute
from flows.run.steps import summarise
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import RunError
from tiling.export.close_ups import write_close_ups
from tiling.runs.run import Run
from unet_core.bundles.card import read_card
from unet_core.models import build

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


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another folder, and the home of who pastes there."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def command_in(text: str, begins: str) -> str:
    """The one command that a text ends a line with, or a page puts between tags."""
    (found,) = set(re.findall(rf"(overtile {begins}.*?)(?:$|</pre>| and the log;)", text, re.MULTILINE))
    return html.unescape(found)


def slides_in(folder: Path) -> Path:
    folder.mkdir()
    write_noise(folder / "a slide.tif", 64, 64)
    os.utime(folder / "a slide.tif", (0, 0))  # no night waits for it to settle
    return folder


@pytest.mark.slow
def test_all_that_is_said_of_a_failed_tile_is_one_command_and_computes_it(tmp_path: Path, elsewhere: Path) -> None:
    run = draw_run(tmp_path / AWKWARD, failed={(1, 1): "it broke"})
    shown = CliRunner().invoke(app, ["status", str(run.path)]).stdout
    told = json.loads(CliRunner().invoke(app, ["status", str(run.path), "--json"]).stdout)["remedy"]
    command = command_in(shown, "rerun")
    assert {command, told, command_in(render_report(run), "rerun"), summarise(run, 0.0).remedy} == {command}
    ended = paste(command, elsewhere)
    assert ended.returncode == 0, ended.stderr
    assert Run.open(run.path).ledger.fold().is_complete


def test_a_report_names_the_command_that_shows_the_run(tmp_path: Path, elsewhere: Path) -> None:
    run = draw_run(tmp_path / AWKWARD)
    with run.open_source() as source:
        write_close_ups(run, source, run.ledger.fold())
    command = command_in(render_report(run), "view")
    shown = f"showing {run.path} at http://127.0.0.1:"
    assert paste_until(shown, f"{command} --no-browser", elsewhere) == 0


def test_the_doctor_names_the_archive_in_what_is_to_be_run(tmp_path: Path, elsewhere: Path) -> None:
    archive = archive_at(tmp_path / AWKWARD)
    (check,) = check_nights(archive.path, 0.0)
    begins = command_in(check.remedy, "archive")
    ended = paste(begins, elsewhere, "--dry-run", SOURCE=slides_in(tmp_path / "a folder"))
    assert ended.returncode == 0, ended.stderr
    assert "to do: 1 slide, " in ended.stdout
    archive.ledger.announce("night", begun(0.0)["facts"])
    status = command_in(next(check_nights(archive.path)).remedy, "status")
    ended = paste(status, elsewhere)
    assert ended.returncode == 0, ended.stderr
    assert str(archive.path) in ended.stdout


def test_a_moved_archive_is_pointed_anew(tmp_path: Path, elsewhere: Path) -> None:
    archive = archive_at(tmp_path / AWKWARD)
    model = save_tiny(tmp_path / "it's mine")
    config = {"source": str(tmp_path / "gone"), "out": str(archive.path), "model": str(model)}
    archive.ledger.announce("night", {**begun(0.0)["facts"], "config": {**config, "failed_only": False}})
    with pytest.raises(RunError) as refused:
        last_config(str(archive.path), {})
    command = command_in(str(refused.value), "archive NEW-SOURCE")
    ended = paste(command, elsewhere, "--dry-run", **{"NEW-SOURCE": slides_in(tmp_path / "a folder")})
    assert ended.returncode == 0, ended.stderr
    assert "to do: 1 slide, " in ended.stdout


def test_an_exported_bundle_is_changed_by_the_command_that_is_named(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["models", "export", "vessels", "-o", f"./{AWKWARD}"]).stdout
    command = command_in(shown, "models import").removesuffix(" changes its card")
    ended = paste(command, elsewhere, "--name other", NEW=tmp_path / "new")
    assert ended.returncode == 0, ended.stderr
    assert read_card(tmp_path / "new").name == "other"


def test_a_network_is_given_weights_by_the_command_that_is_named(tmp_path: Path, elsewhere: Path) -> None:
    shown = CliRunner().invoke(app, ["models", "show", "unetpp"], env={"COLUMNS": "60"}).stdout
    command = command_in(shown, "models import")
    save_file(build("unetpp", {"bands": 3, "classes": 2}).state_dict(), tmp_path / "its.safetensors")
    (tmp_path / "its.toml").write_text(
        'bands = ["red", "green", "blue"]\nclasses = ["background", "cell"]\nmean = [0, 0, 0]\nstd = [255, 255, 255]\n'
    )
    given = {"WEIGHTS": tmp_path / "its.safetensors", "CARD": tmp_path / "its.toml", "NEW": tmp_path / "new"}
    ended = paste(command, elsewhere, "", **given)
    assert ended.returncode == 0, ended.stderr
    assert read_card(tmp_path / "new").architecture == "unetpp"
