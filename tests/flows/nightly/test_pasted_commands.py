"""Every command that a night, its page, a status or a report prints, pasted into a shell in another folder."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from cli import OVERTILE
from nights import archive_at

from flows.commands.archive_text import print_night
from flows.doctor.nights import check_nights
from flows.nightly.night import NightSummary
from flows.nightly.notification import of_night
from flows.nightly.page import facts, page_of
from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.storage.place import pasted

NAME = """it's "an" $(touch harm) `touch harm` archive; touch harm"""
SLIDE = """-o it's a "slide" $(touch harm) & touch harm.svs"""
FAILED = SlideRecord(SLIDE, SlideState.FAILED, "slides/a", 10, "v1", reason="OSError: a share is gone", night="n1")


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NightSummary:
    """A night that was asked for with a relative path."""
    monkeypatch.chdir(tmp_path)
    archive = archive_at(Path(NAME))
    archive.ledger.append(FAILED)
    archive.ledger.flush()
    known = replace(FAILED, night="n0")
    return NightSummary(Path(NAME), "2026-11-29_010000", (), (known,), 0, 0, "its work", 1.0, 1.0, 1, 0.5, None)


def printed(night: NightSummary) -> Iterator[str]:
    """All that is said of the night, as text."""
    terminal = StringIO()
    with redirect_stdout(terminal):
        print_night(night)
    yield terminal.getvalue()
    yield from (html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", "".join(page_of(night))))
    found = json.loads(facts(night))
    yield from [found["rerun"], *found["advice"], of_night(night).text]
    yield from (f"{check.found} {check.remedy}" for check in check_nights(night.archive, 0.0))


def commands(texts: Iterator[str]) -> set[str]:
    """The lines' commands: from the program's name on to the end of the line."""
    found = (
        re.search(r"(?:^|: )(overtile (?:rerun|archive|status|view|segment) .+)$", line)
        for text in texts
        for line in text.splitlines()
    )
    return {each[1] for each in found if each}


def paste(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a new shell, with nothing in its environment but the way to the program."""
    environment = {"PATH": f"{OVERTILE.parent}:/usr/bin:/bin"}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_each_reaches_its_archive_from_any_folder_and_orders_of_a_name_are_not_obeyed(
    night: NightSummary, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place, found = pasted(tmp_path / NAME), commands(printed(night))
    (first,) = (command for command in found if "SOURCE" in command)  # what a person fills in before it is pasted
    assert first == f"overtile archive SOURCE --out {place}"
    found.remove(first)
    assert {command.partition(place)[0] for command in found} == {"overtile rerun ", "overtile archive --out "}
    said = {command.split()[1]: paste(command, elsewhere) for command in sorted(found)}
    assert said["archive"].returncode == 0, said["archive"].stderr
    record = Archive.open(tmp_path / NAME).ledger.get(SLIDE)
    assert record is not None
    assert record.acknowledged
    assert "has seen no night yet" in said["rerun"].stderr, "it was found, and there is nothing to try again with"
    status = paste(f"overtile status {place}", elsewhere)
    assert status.returncode == 0, status.stderr
    assert not [*elsewhere.iterdir()]
