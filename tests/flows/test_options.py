"""Options, each declared once: the command line, Python, a job file, a manifest and a form say the same of it."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer.main
from prefect.utilities.callables import parameter_schema
from typer.testing import CliRunner

from flows.api.options import ModelFacts, SegmentOptions
from flows.api.segment_image import segment_image
from flows.archive import segment_archive
from flows.cli import app
from flows.config.archive import COLUMNS, ArchiveConfig
from flows.config.base import ConfigBase, checked
from flows.config.export import ExportConfig
from flows.config.job import read_job
from flows.config.run import RerunConfig, SegmentConfig, VerifyConfig
from flows.doctor.examine import DoctorConfig
from flows.errors import ConfigError
from flows.rerun import rerun
from flows.segment import segment
from flows.verify import verify
from tiling.archives.manifest import read_manifest
from tiling.errors import SourceError
from unet_core.bundles.facts import CardFacts

ROOT = Path(__file__).resolve().parents[2]

COMMANDS: dict[str, tuple[type[ConfigBase], set[str]]] = {
    "segment": (SegmentConfig, {"dry_run"}),
    "archive": (ArchiveConfig, {"dry_run", "acknowledge"}),
    "rerun": (RerunConfig, {"run", "is_archive"}),
    "verify": (VerifyConfig, set()),
    "export": (ExportConfig, {"listed"}),
    "doctor": (DoctorConfig, {"notify"}),
}
"""What each command takes, and the names of what is its own, a `run` that may be an archive among them."""

EVERYWHERE = {"quiet", "verbose", "json_output", "progress_shown", "config_file"}
"""What every command takes, or all that show progress, print JSON or read a configuration."""

NEEDED = {"image": "a.tif", "source": "slides", "out": "out", "run": "run"}

FORMS = {"segment": segment, "archive": segment_archive, "rerun": rerun, "verify": verify}


def needed(kind: type[ConfigBase]) -> dict[str, str]:
    return {name: NEEDED[name] for name, field in kind.model_fields.items() if field.is_required()}


def choices(kind: type[ConfigBase], name: str) -> list[str] | None:
    return kind.model_json_schema()["properties"].get(name, {}).get("enum")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_every_option_of_its_configuration_as_it_is_declared(command: str) -> None:
    kind, own = COMMANDS[command]
    every: Any = typer.main.get_command(app)
    parameters = every.commands[command].params
    known = {each.name: each for each in parameters if each.name not in {"help", *EVERYWHERE, *own} and not each.hidden}
    assert known.keys() == kind.model_fields.keys() - own
    for name, shown in known.items():
        field = kind.model_fields[name]
        assert kind.written(name) in shown.opts
        assert field.description
        assert shown.help.startswith(field.description)
        if (known_choices := choices(kind, name)) is not None:
            assert shown.metavar == "|".join(known_choices)
        if not field.is_required():
            # The default is shown as a person would write it, and read like what a person writes.
            given = {} if shown.default is None else {name: shown.default}
            assert getattr(kind.model_validate({**needed(kind), **given}), name) == field.default


def test_python_takes_the_same_options() -> None:
    signature, described = inspect.signature(segment_image), inspect.getdoc(segment_image) or ""
    own = {"image", "out", "executor", "progress"}
    assert signature.parameters.keys() - own == SegmentConfig.model_fields.keys() - own
    for name, field in SegmentConfig.model_fields.items():
        if name not in own:
            assert signature.parameters[name].default == field.default
            assert signature.parameters[name].annotation == field.annotation
            assert f"{name}: {field.description}" in described


def test_editors_and_type_checkers_see_the_same_options() -> None:
    known = get_type_hints(SegmentOptions, localns={"Network": object})
    assert known.keys() == SegmentConfig.model_fields.keys() - {"image", "out"}
    for name, annotation in known.items():
        field = SegmentConfig.model_fields[name].annotation
        if get_origin(field) is Literal or field is bool or name == "compiled":
            assert annotation == field
        assert (type(None) in get_args(annotation)) == (SegmentConfig.model_fields[name].default is None), name
    assert get_type_hints(ModelFacts).keys() == CardFacts.model_fields.keys()


@pytest.mark.parametrize("kind", [kind for kind, _ in COMMANDS.values()])
def test_a_job_file_knows_the_same_keys_and_says_what_each_means(kind: type[ConfigBase]) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(kind, {**needed(kind), "nope": 1})
    assert str(refused.value) == f"nope: there is no such key; known are {', '.join(kind.model_fields)}"
    for name, field in kind.model_fields.items():
        with pytest.raises(Exception, match=r".") as mistaken:
            checked(kind, {**needed(kind), name: {"no": "value"}})
        assert name in str(mistaken.value)
        assert str(field.description) in str(mistaken.value)


@pytest.mark.parametrize("command", FORMS)
def test_prefects_form_shows_the_same_options_but_those_that_run_code(command: str) -> None:
    kind, _ = COMMANDS[command]
    fields = parameter_schema(FORMS[command]).definitions[kind.__name__]["properties"]
    assert fields.keys() == kind.model_fields.keys() - {"trust_code", "notify"}
    for name, shown in fields.items():
        field = kind.model_fields[name]
        assert shown["description"] == field.description
        assert shown.get("enum") == choices(kind, name)
        if not field.is_required() and field.default is not None:
            assert shown["default"] == (list(field.default) if isinstance(field.default, tuple) else field.default)


def test_a_home_that_no_shell_has_expanded_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"out": "run", "model": "mine", "card": "card.toml", "weights": "net.pt"}
    (tmp_path / "job.toml").write_text("".join(f'{name} = "~/{path}"\n' for name, path in names.items()))
    config = checked(SegmentConfig, {"image": "~/a.tif", **read_job(SegmentConfig, Path("~/job.toml"))})
    assert config.image == tmp_path / "a.tif"
    assert {name: str(getattr(config, name)) for name in names} == {
        name: str(tmp_path / path) for name, path in names.items()
    }
    assert checked(SegmentConfig, {"image": Path("~/a.tif"), "out": "~no-user/run"}).out == Path("~no-user/run")


def test_a_job_of_an_editor_that_marks_utf_8_is_read(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("core = 64\n", encoding="utf-8-sig")
    assert read_job(SegmentConfig, tmp_path / "job.toml") == {"core": "64"}


def test_a_manifests_columns_are_options_of_one_image(tmp_path: Path) -> None:
    assert set(COLUMNS) <= SegmentConfig.model_fields.keys()
    (tmp_path / "list.csv").write_text("slide,colour\na.svs,red\n")
    with pytest.raises(SourceError, match=f"known are slide, name, {', '.join(COLUMNS)}$"):
        list(read_manifest(tmp_path / "list.csv", COLUMNS))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("segment a.tif --out o --tta d8", "--tta: Input should be 'none', 'flips' or 'd4', not 'd8'"),
        ("archive in --out o --precision float8", "--precision: Input should be 'auto', 'float32', 'bfloat16' or"),
        ("archive in --out o --foreground m.png", "--foreground: Value error, a mask image belongs to one slide"),
        ("segment a.tif --out o --keep-staged --core 0", "--core: Input should be greater than 0, not '0'; Side of a"),
        ("segment a.tif --out o --image-mpp wide", "--image-mpp: Input should be a valid number"),
        ("archive in --out o --staging-budget much", "--staging-budget: Value error, a size is written as 50GB"),
        ("archive in --out o --settle soon", "--settle: Value error, a duration is written as 5h"),
        ("rerun r --tile 1,2 --tile 3", "--tile: Value error, a tile is ROW,COL, for example 3,12, not '3'"),
        ("verify r --device gpu", "--device: Input should be 'auto', 'cpu' or 'cuda', not 'gpu'; auto, cpu, or"),
        ("export r --format png --format cog", "--format: 'png' is no format; give none, auto, or names of"),
        ("doctor --workers 0", "--workers: Input should be greater than 0, not '0'; Actors of the plan"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_by_its_flag(words: str, said: str) -> None:
    ended = CliRunner().invoke(app, words.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {said}")
    assert ended.stderr.count("\n") == 1


def test_help_loads_neither_torch_nor_ray_nor_prefect() -> None:
    asked = "import sys; from flows.cli import app; print(sorted({'torch', 'ray', 'prefect'} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[]\n"


def test_several_words_are_the_bands_of_one_image_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SegmentConfig] = []
    monkeypatch.setattr("flows.commands.segment.run_and_report", lambda _, config: asked.append(config))
    runner = CliRunner()
    for words, image in ((["a.tif"], "a.tif"), (["red=r.tif", "nir=n.tif"], "red=r.tif,nir=n.tif")):
        ended = runner.invoke(app, ["segment", *words, "--model", "nuclei", "--out", "run"])
        assert ended.exit_code == 0, ended.output
        assert str(asked[-1].image) == image
    refused = runner.invoke(app, ["segment", "a.tif", "b.tif", "--model", "nuclei", "--out", "run"])
    assert refused.exit_code == 2
    assert "2 files are given for one image" in refused.output


def commands_of(group: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every command that is shown, by the words that call it."""
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        found += [] if command.hidden else [(f"{path}{name}", command)]
        found += commands_of(command, f"{path}{name} ") if hasattr(command, "commands") else []
    return found


def test_each_help_says_what_a_value_is_shows_two_examples_and_names_its_page() -> None:
    for name, command in commands_of(typer.main.get_command(app)):
        assert command.epilog.count("  overtile ") >= 2, name
        assert (ROOT / command.epilog.rpartition("Docs: ")[2].strip()).is_file(), name
        shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
        assert re.findall(r"--[a-z-]+ .* (TEXT|INTEGER|FLOAT|BOOLEAN)\b", shown) == [], name
