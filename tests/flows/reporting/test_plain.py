"""Names from outside are shown and never obeyed: in the terminal, in artifacts, in errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli import Cli, clean_environment, on_disk, write_tissue
from finished import finished_run
from pydantic import ValidationError
from rich.table import Table

from flows.config.base import problem_in
from flows.config.run import RerunConfig, SegmentConfig
from flows.reporting.escaping import PlainConsole, markdown, plain
from flows.reporting.logs import PlainFormatter

HOSTILE = "a\x1b[2J\x07[red]<img src=x onerror=alert(1)>\nerror: all is well\r|`*\u202e.tif"


def test_plain_text_is_one_printable_line_and_keeps_what_is_printable() -> None:
    assert plain(HOSTILE).isprintable()
    assert plain("Präparat 3 – 切片.svs") == "Präparat 3 – 切片.svs"
    assert plain("a\x1b[2J\n\u202eb") == r"a\x1b[2J\n\u202eb"
    assert plain("not \udcff utf-8") == r"not \udcff utf-8"


def test_markdown_holds_no_html_and_no_links() -> None:
    shown = markdown("[click](javascript:x) <script>|`*" + HOSTILE)
    assert "<" not in shown
    assert r"\[click\](javascript:x) &lt;script&gt;\|\`\*" in shown
    assert shown.isprintable()
    assert markdown("/runs/slide_3-a (2).tif") == "/runs/slide_3-a (2).tif"


@pytest.mark.parametrize(
    "text", ["www.evil.example", "/runs/WWW.evil.example.tif", "ftp://evil.example", "a@evil.example"]
)
def test_markdown_makes_no_link_of_an_address(text: str) -> None:
    shown = markdown(text)
    assert not re.search(r"www\.|[^\\]://|[^\\]@", shown, re.IGNORECASE)
    assert re.sub(r"\\(?=[.:@])", "", shown) == text


def test_the_terminal_takes_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    console = PlainConsole()
    console.print(f"run {HOSTILE} :smiley:", soft_wrap=True)
    output = capsys.readouterr().out
    assert output.rstrip("\n").isprintable()
    assert "[red]" in output
    assert ":smiley:" in output
    table = Table.grid()
    table.add_row("[bold]name[/bold]")
    console.print(table)
    assert "[bold]name[/bold]" in capsys.readouterr().out


def test_a_warning_about_a_hostile_name_is_one_line_too(tmp_path: Path) -> None:
    run = finished_run(write_tissue(tmp_path / "tissue.tif", 128, 128), tmp_path / "a\x1b[2J\nb")
    ledger = on_disk(run.path) / "ledger"
    (ledger / "00000099.jsonl").write_bytes((ledger / "00000001.jsonl").read_bytes())
    ended = Cli(clean_environment(tmp_path)).run("status", run.path)
    assert r"a\x1b[2J\nb/ledger/00000099.jsonl is a copy" in ended.err
    assert all(line.isprintable() for line in ended.err.splitlines())
    record = logging.LogRecord("flows", logging.WARNING, "", 1, "slide %s", (HOSTILE,), None)
    assert PlainFormatter().format(record) == f"slide {plain(HOSTILE)}"


def test_a_hostile_file_name_is_told_on_one_line(tmp_path: Path) -> None:
    hostile = tmp_path / HOSTILE.replace("/", "")
    hostile.write_bytes(write_tissue(tmp_path / "good.tif", 64, 64).read_bytes()[:300])
    ended = Cli(clean_environment(tmp_path / "home")).run("segment", hostile, "--out", tmp_path / "run")
    assert ended.code == 2
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert len(lines) == 1, ended.err
    assert lines[0].isprintable()
    assert r"\x1b[2J" in lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": 3}, "cores: there is no such key; known are image, out, model, "),
        ({"core": -5}, "core: Input should be greater than 0, not -5"),
        ({"core": "many"}, "core: Input should be a valid integer"),
        ({"level": -1}, "level: Input should be greater than or equal to 0, not -1"),
        ({"precision": "int4"}, "precision: Input should be 'auto', 'float32', 'bfloat16' or 'float16', not 'int4'"),
        ({"halo": "approximate:-3"}, "halo: String should match pattern"),
        ({"workers": 0}, "workers: Input should be greater than 0, not 0"),
        ({"out": None}, "out: Value error, a path or a URL is needed, not None"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_may_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SegmentConfig.model_validate({"image": "a.tif", "out": "run", **change})
    assert problem_in(caught.value).startswith(message)


@pytest.mark.parametrize("kind", [SegmentConfig.model_validate, RerunConfig.model_validate])
def test_a_missing_parameter_is_named(kind: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind({})
    assert "a value is needed" in problem_in(caught.value)
