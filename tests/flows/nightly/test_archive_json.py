"""JSON of archives: one object for a night, for what stands failed and for what was acknowledged."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from past_nights import begun
from summaries import BAD, DONE, night_of
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.facts import facts_at_stop, night_facts
from flows.commands.output import as_json
from flows.errors import StoppedError
from flows.nightly.left import WorkLeft
from tiling.archives.archive import Archive, ArchiveCard

PAGE = Path(__file__).parents[3] / "docs" / "json.md"


def row_of(command: str) -> set[str]:
    """The names that the page gives in the row of a command."""
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| {command}"))
    return set(re.findall(r"`(\w+)`", row.split("|")[2])) | {"schema", "command"}


def asked_for(*words: object) -> dict[str, Any]:
    ended = CliRunner().invoke(app, list(map(str, words)))
    assert (ended.exit_code, ended.stdout.count("\n")) == (0, 1), ended.output
    return json.loads(ended.stdout)


def test_a_night_is_one_object_with_its_verdict_what_is_new_and_what_is_left() -> None:
    old = replace(BAD, slide="old.svs")
    night = night_of(BAD, DONE, left=WorkLeft(2, 1, 30, 60.0, 1), flags={"b.svs": ("most objects are specks",)})
    facts = as_json(night_facts(replace(night, known_failures=(old,))))
    assert facts["verdict"] == "new failures"
    assert (facts["new_failures"], facts["known_failures"]) == ({"bad.svs": "cut off"}, {"old.svs": "cut off"})
    assert facts["left"] == {"slides": 2, "begun": 1, "tiles": 30, "seconds": 60.0, "nights": 1}
    assert facts["to_look_at"] == {"b.svs": ["most objects are specks"]}
    assert facts.keys() | facts["left"].keys() <= row_of("`archive`, `rerun` of an archive")


def test_what_a_stopped_night_did_is_in_the_object_that_says_so() -> None:
    assert facts_at_stop(StoppedError("stopped", 15, night_of(DONE)))["slides"]["done"] == 1
    assert facts_at_stop(StoppedError("stopped", 15)) == {}


def test_an_archive_says_in_json_what_it_says_in_lines(tmp_path: Path) -> None:
    card = ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})
    archive = Archive.create_or_resume(tmp_path / "out", card)
    archive.ledger.announce("night", begun(0.0)["facts"])
    archive.ledger.append(replace(BAD, night="n0"))
    archive.ledger.flush()
    found = asked_for("status", archive.path, "--json")
    assert found["failed"] == {"bad.svs": "cut off"}
    (death,) = found["unended"]["deaths"]
    assert "its process ended without a word" in death
    assert (found["unended"]["over"], found["unended"]["waiting"]) == (1, 2)
    assert found.keys() | found["unended"].keys() <= row_of("`status` of an archive")
    seen = asked_for("archive", "--out", archive.path, "--acknowledge", "bad.svs", "--json")
    assert seen["acknowledged"] == {"bad.svs": "cut off"}
    assert seen.keys() <= row_of("`archive --acknowledge`")
    again = asked_for("status", archive.path, "--json")
    assert (again["failed"], again["acknowledged"]) == ({}, {"bad.svs": "cut off"})
