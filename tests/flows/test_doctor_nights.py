"""`overtile doctor --archive`: what a clock can ask about an archive's nights."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from past_nights import DAY, HOUR, begun, ended

from flows.doctor.checks import Check, DoctorConfig, Level
from flows.doctor.examine import examine
from flows.doctor.nights import check_nights
from tiling.archives.archive import Archive, ArchiveCard


def archive_of(path: Path, *events: dict[str, object]) -> Path:
    card = ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})
    ledger = Archive.create_or_resume(path, card).ledger
    for event in events:
        ledger.announce(str(event["event"]), event["facts"])  # type: ignore[arg-type]
    return path


def looked_at(path: Path, now: float) -> dict[str, Check]:
    return {check.name: check for check in check_nights(path, now)}


def test_a_night_that_ended_yesterday_is_well(tmp_path: Path) -> None:
    found = looked_at(archive_of(tmp_path, begun(0), ended(HOUR, "n0")), DAY)
    assert {check.verdict for check in found.values()} == {Level.ok}


def test_a_night_that_did_not_begin_is_missing(tmp_path: Path) -> None:
    check = looked_at(archive_of(tmp_path, begun(0), ended(HOUR, "n0")), 3 * DAY)["nights due"]
    assert check.verdict is Level.missing
    assert "2 nights were due" in check.found


def test_a_night_that_died_is_missing_and_one_under_way_is_not(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, begun(0))
    assert looked_at(archive, HOUR)["last night"].verdict is Level.missing
    lock = archive / "driver.lock"
    lock.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": "now"}))
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert looked_at(archive, HOUR)["last night"].verdict is Level.ok
    assert looked_at(archive, HOUR)["last night"].verdict is Level.missing, "its process holds it no longer"


def test_alone_it_looks_at_nothing_else_and_says_where_there_is_none(tmp_path: Path) -> None:
    (check,) = examine(DoctorConfig(archive=tmp_path))
    assert check.verdict is Level.missing
    assert "holds no archive" in check.found
    assert len(list(examine(DoctorConfig(archive=archive_of(tmp_path, begun(0), ended(9, "n0")))))) == 2
