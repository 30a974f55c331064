"""What commands print: one object of JSON, events, nothing, versions; options in a file and in short."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from asked import verdict_of
from cli import write_tissue
from drawn import draw_run
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.facts import outcome_facts, run_facts, verification_facts
from flows.commands.output import as_json, print_event
from flows.reporting.progress import Progress
from flows.run.steps import summarise

PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def invoked(*words: object) -> Any:
    return CliRunner().invoke(app, list(map(str, words)))


def asked_for(*words: object) -> dict[str, Any]:
    ended = invoked(*words)
    assert ended.stdout.count("\n") == 1, ended.output
    found = json.loads(ended.stdout)
    assert found["schema"] == 1
    return found


def row_of(command: str) -> set[str]:
    """The names that the page gives in the row of a command."""
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith("| ") and command in line.split("|")[1])
    return set(re.findall(r"`(\w+)`", row.split("|")[2])) | {"schema", "command"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json") / "run"
    draw_run(folder, failed={(1, 1): "it broke"}, skipped=((0, 0),))
    return folder


def test_status_is_one_object_whose_fields_the_page_names(run: Path) -> None:
    found = asked_for("status", run, "--json")
    assert found["command"] == "status"
    assert found["tiles"] == {"total": 12, "pending": 0, "done": 10, "failed": 1, "skipped": 1, "damaged": 0}
    assert found["failed"] == {"1,1": "it broke"}
    assert found["mask_px"] == [384, 512]
    assert found.keys() | found["tiles"].keys() <= row_of("`status` of a run")


def test_the_outcomes_of_runs_are_as_the_page_names_them(run: Path) -> None:
    from tiling.runs.run import Run

    opened = Run.open(run)
    assert outcome_facts(summarise(opened, 0.0)).keys() <= row_of("`segment`, `rerun` of a run")
    verdict = verification_facts(verdict_of(opened))
    assert verdict.keys() <= row_of("`verify`")
    assert not verdict["sound"]
    json.dumps(as_json([run_facts(opened), verdict, {"a": float("nan"), "b": Path("x")}]), allow_nan=False)


def test_a_rerun_of_what_did_not_fail_says_so_at_once(tmp_path: Path) -> None:
    draw_run(tmp_path / "run")
    found = asked_for("rerun", tmp_path / "run", "--failed", "--json")
    assert (found["complete"], found["failed"]) == (True, {})
    assert found.keys() <= row_of("`segment`, `rerun` of a run")
    assert "nothing to compute again" in invoked("rerun", tmp_path / "run", "--failed").stdout


def test_a_failure_is_an_object_too_and_keeps_its_line_and_code(tmp_path: Path) -> None:
    for words in (["status", tmp_path], ["segment", tmp_path / "no.tif", "-o", tmp_path / "r", "--core", 0]):
        ended = invoked(*words, "--json")
        assert ended.exit_code == 2
        error = json.loads(ended.stdout)["error"]
        assert ended.stderr == f"error: {error['message']}\n"
        assert error["kind"].endswith("Error")


def test_models_are_listed_with_their_networks_and_shown(run: Path) -> None:
    found = asked_for("models", "list", "--json")["models"]
    assert {each["name"]: each["kind"] for each in found}.items() >= {"nuclei": "model", "unet3p": "network"}.items()
    assert len(found) == 20
    assert "Cell nuclei in RGB microscopy," in invoked("models", "list").stdout, "room for a sentence at 80 columns"
    shown = asked_for("models", "show", "nuclei", "--json")
    assert shown["halo_px"] == dict.fromkeys(("top", "bottom", "left", "right"), 94)
    assert shown["training"]["validation"]["all"]["mean_iou"] == pytest.approx(0.8395)
    network = asked_for("models", "show", "patch_classifier", "--json")
    assert network["stride_px"] == [1, 1]
    named = row_of("`models list`") | row_of("`models show`")
    assert shown.keys() | network.keys() <= named
    text = invoked("models", "show", "nuclei").stdout
    assert all(each in text for each in ("Apache-2.0", "531 images, CC0", "mean IoU 0.840", "halo top"))
    text = " ".join(text.split())
    first, chosen = (text.index(each) for each in ("mean IoU of objects 0.850", "mean IoU 0.840"))
    assert first < text.index("on 52 held-back images") < chosen < text.index("on 54 images for choosing")
    assert "halo top" in invoked("models", "inspect", "nuclei").stdout


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "slide.tif", 512, 640)
    words = ["segment", image, "-o", tmp_path / "run", "--image-mpp", 0.5, "--core", 128, "--foreground", "none"]
    found = asked_for(*words, "--dry-run", "--json")
    assert (found["tiles"], found["skipped"], found["read_px"]) == (20, 0, [320, 320])
    assert found["memory_bytes"] == found["workers"] * found["worker_bytes"] > 0
    assert found["seconds"] > found["seconds_per_tile"] > 0
    assert found.keys() == row_of("`segment --dry-run`")
    assert invoked(*words, "--dry-run").stdout.startswith("image:   ")
    assert [each.name for each in tmp_path.iterdir()] == ["slide.tif"]
    refused = invoked(*words, "--core", 100, "--dry-run")
    assert (refused.exit_code, "not a multiple" in refused.stderr) == (2, True)


def test_a_file_gives_every_option_and_the_command_line_wins(tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "slide.tif", 256, 256)
    job = tmp_path / "job.toml"
    job.write_text(
        f'image = "{image}"\nout = "{tmp_path / "run"}"\nimage-mpp = 0.5\ncore = 64\nbands = [3, 2, 1]\n'
        'export = ["statistics"]\nforeground = "none"\nas_is = true\n'
    )
    found = asked_for("segment", "--config", job, "--dry-run", "--json", "--core", 128)
    assert (found["core_px"], found["bands"], found["exports"]) == (128, ["blue", "green", "red"], ["statistics"])
    for text, said in (
        ("cores = 1", "there is no option 'cores'; known are image, out, model"),
        ("core = 0", "--core: Input should be greater than 0"),
        ("core = {a = 1}", "core is a table, and an option is one value"),
        ("core = ", "can't be read as TOML"),
    ):
        job.write_text(f'image = "{image}"\nout = "o"\n{text}\n')
        ended = invoked("segment", "--config", job, "--dry-run")
        assert ended.exit_code == 2
        assert said in ended.stderr
    assert "can't be read as TOML" in invoked("verify", "--config", tmp_path / "none.toml").stderr


def test_exports_are_listed_as_files(tmp_path: Path) -> None:
    draw_run(tmp_path / "run")
    words = ["export", tmp_path / "run", "--format", "statistics"]
    found = asked_for(*words, "--json")
    assert [Path(each).name for each in found["files"]] == ["statistics.csv", "statistics.parquet"]
    assert found.keys() <= row_of("`export`")
    assert asked_for(*words, "--json")["files"] == []
    assert asked_for(*words, "--again", "--json")["files"] == found["files"], "the former name of --force"
    assert invoked(*words, "--force", "-q").output == ""
    assert {each["name"] for each in asked_for("export", "--list", "--json")["formats"]} >= {"cog", "qupath"}


def test_an_event_is_one_line_whose_fields_the_page_names(capsys: pytest.CaptureFixture[str]) -> None:
    print_event(Progress("infer", 3, 4, pixels=10**6, seconds=2.0, done_here=2))
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    event = json.loads(err)
    assert (event["event"], event["megapixels_per_second"], event["left_seconds"]) == ("progress", 0.5, 1.0)
    (line,) = (each for each in PAGE.read_text().split("\n\n") if each.startswith("An event has"))
    assert event.keys() - {"schema"} <= set(re.findall(r"`(\w+)`", line))


def commands() -> dict[tuple[str, ...], Any]:
    every: Any = typer.main.get_command(app)
    found = {(name,): command for name, command in every.commands.items() if name != "models"}
    models = {("models", name): command for name, command in every.commands["models"].commands.items()}
    return found | models


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_help_has_examples_a_page_that_exists_and_one_style(words: tuple[str, ...]) -> None:
    text, narrow = (
        CliRunner().invoke(app, [*words, "-h"], env={"COLUMNS": width, "TERMINAL_WIDTH": width}).stdout
        for width in ("160", "80")
    )
    assert {*re.findall(r"\S+…", narrow)} <= {*re.findall(r"\S+…", text)}, "words cut off at 80 columns"
    shown = {line.strip() for line in narrow.splitlines()}
    assert {line.strip() for line in text.splitlines() if line.strip().startswith("overtile ")} <= shown
    examples = text.partition("Examples:")[2]
    assert examples.count(f"overtile {' '.join(words).replace('inspect', 'show')}") == 2
    (page,) = re.findall(r"Docs: docs/(\S+)", text)
    assert (PAGE.parent / page).is_file()
    assert not re.search(r"<(bool|str|int|float|path)|<=|>=|default: no-|\{", text)
    assert "--quiet" in text
    assert "-h" in text
    former = {flag for each in commands()[words].params if each.hidden for flag in each.opts}
    assert not {flag for flag in former if re.search(rf"{flag}\b", text)}


def test_what_takes_a_run_or_an_archive_says_so_in_the_same_words() -> None:
    every = [each for name in ("rerun", "status", "view") for each in commands()[(name,)].params]
    said = {(each.metavar, each.help, each.required) for each in every if each.param_type_name == "argument"}
    assert said == {("RUN|ARCHIVE", "A run folder or an archive's folder, a path or URL.", True)}


def test_examples_are_commands_that_parse() -> None:
    from flows.commands.help import EXAMPLES

    known = commands()
    for first, second, _ in EXAMPLES.values():
        for example in (first, second):
            program, *words = example.split()
            assert program == "overtile"
            name = tuple(words[:2]) if words[0] == "models" else (words[0],)
            options = {flag for each in known[name].params for flag in (*each.opts, *each.secondary_opts)}
            assert {word for word in words if word.startswith("-")} <= options, example


def test_the_version_is_one_line() -> None:
    assert re.fullmatch(r"overtile \d+\.\d+\.\d+\n", invoked("--version").stdout)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("segment --pre", {"--precision"}),
        ("segment --tta d", {"d4"}),
        ("models sh", {"show"}),
        ("ver", {"verify"}),
        ("export --ag", set[str]()),
        ("segment -m nucl", {"nuclei", "nuclei-small"}),
        ("doctor --model wa", {"water"}),
        ("models show unet_bn", {"unet_bn", "unet_bn_deconv"}),
        ("models export ves", {"vessels"}),
        ("models export fcn", set[str]()),
        ("models import fcn3", {"fcn32s"}),
        ("segment --objects c", {"components"}),
        ("segment --foreground n", {"none"}),
        ("segment --halo e", {"exact"}),
        ("verify --progress j", {"json"}),
        ("export --format ome", {"ome-tiff"}),
        ("segment --export geojson,sta", {"geojson,stac", "geojson,statistics"}),
        ("segment --bands r", set[str]()),
    ],
)
def test_a_shell_completes_commands_options_and_choices(words: str, offered: set[str]) -> None:
    environment = {"_OVERTILE_COMPLETE": "complete_bash", "COMP_WORDS": f"overtile {words}"}
    environment["COMP_CWORD"] = str(len(words.split()))
    ended = CliRunner().invoke(app, [], env=environment, prog_name="overtile")
    assert set(ended.stdout.split()) == offered


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ("models shw", "UsageError", "No such command 'shw'. Did you mean 'show'? (see overtile models -h)"),
        ("status", "MissingParameter", "Missing argument 'RUN|ARCHIVE' (see overtile status -h)"),
        ("segment a.tif", "MissingParameter", "Missing option '--out' / '-o' (see overtile segment -h)"),
        ("verify --tile 3 run", "NoSuchOption", "No such option: --tile (Possible options: "),
        ("models list more", "UsageError", "unexpected extra argument(s) (more)"),
    ],
)
def test_words_that_can_not_be_read_are_one_line_or_one_object(words: str, kind: str, said: str) -> None:
    for ended in (invoked(*words.split()), invoked(*words.split(), "--json")):
        assert ended.exit_code == 2
        assert ended.stderr.count("\n") == 1
        assert ended.stderr.startswith("error: ")
        assert said in ended.stderr
        if ended.stdout:
            error = json.loads(ended.stdout)["error"]
            assert (error["kind"], f"error: {error['message']}\n") == (kind, ended.stderr)
    assert ended.stdout


def test_progress_is_one_of_three(tmp_path: Path) -> None:
    ended = invoked("verify", tmp_path, "--progress", "lots")
    assert (ended.exit_code, ended.stderr) == (2, "error: --progress: give one of bar, json, none, not 'lots'\n")
