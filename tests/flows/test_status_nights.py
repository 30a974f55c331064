"""`overtile status` of an archive: a night that died, one that is under way, and what waits for the next one."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

from nights import archive_at
from past_nights import HOUR, begun, ended
from summaries import BAD, DONE
from typer.testing import CliRunner

from flows.cli import app
from tiling.archives.history import shown_time
from tiling.archives.slide_record import SlideState
from tiling.storage.place import Place


def status(archive: Place) -> str:
    shown = CliRunner().invoke(app, ["status", str(archive)])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def archive_of_a_night(path: Path, *events: dict[str, object]) -> Path:
    """One whose last night had three slides to do, of which one is done, one begun and one waits."""
    archive = archive_at(path)
    for event in events:
        archive.ledger.announce(str(event["event"]), event["facts"])  # type: ignore[arg-type]
    archive.ledger.append(replace(DONE, night=f"n{HOUR:.0f}"))
    archive.ledger.append(replace(DONE, slide="begun.svs", state=SlideState.BEGUN, night=f"n{HOUR:.0f}"))
    archive.ledger.flush()
    return path


def test_a_night_that_died_is_told_with_what_it_left(tmp_path: Path) -> None:
    said = status(archive_of_a_night(tmp_path / "out", begun(0), ended(9, "n0"), begun(HOUR)))
    assert (
        "its process ended without a word, as after a power cut or for want of memory; the next night resumes" in said
    )
    assert "of its slides 1 are over, 1 begun, 1 wait" in said
    assert f"night of {shown_time(0)}: slides: 1 done" in said, "the last that ended, as people write it"


def test_a_night_that_is_under_way_has_not_died(tmp_path: Path) -> None:
    archive = archive_of_a_night(tmp_path / "out", begun(0), begun(HOUR))
    lock = archive / "driver.lock"
    lock.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": "now"}))
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = status(archive)
    assert said.count("died") == 1, "the one before it"
    assert "a night is under way since 1970-01-01" in said
    assert "1 begun, 1 wait" in said


def test_what_a_night_left_waits_and_known_failures_are_named(tmp_path: Path) -> None:
    archive = archive_at(tmp_path / "out")
    archive.ledger.announce("night", begun(0)["facts"])
    left = "2 slides left (1 begun): about 30 tiles, 1:00 of computing, 1 night at this rate"
    archive.ledger.announce("morning", {**ended(9, "n0")["facts"], "left": left})
    archive.ledger.append(replace(BAD, night="n0"))
    archive.ledger.flush()
    said = status(archive.path)
    assert f"waits for the next night: {left}" in said
    assert "bad.svs: cut off" in said


def test_failures_are_named_up_to_a_bound_with_the_acknowledged_beside_them_and_not_below_what_is_to_be_looked_at(
    tmp_path: Path,
) -> None:
    archive = archive_at(tmp_path / "out")
    for number in range(23):
        archive.ledger.append(replace(BAD, slide=f"bad-{number:02}.svs"))
    archive.ledger.append(replace(BAD, slide="left.svs", acknowledged=True))
    archive.ledger.append(replace(DONE, measures={"objects": 0}))
    archive.ledger.flush()
    lines = status(archive.path).splitlines()
    assert lines[-4:] == [
        "  and 3 more",
        "  and 1 whose failure is acknowledged",
        "1 to look at:",
        "  b.svs: no object",
    ]
    assert sum(line.startswith("  bad-") for line in lines) == 20
