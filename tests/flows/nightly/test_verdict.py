"""Verdict of a night and what it leaves: pure facts of its records, and the exit code that follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from summaries import BAD, DONE, night_of

from flows.commands.archive import exit_code_of
from flows.nightly.left import Rates, WorkLeft, work_left
from flows.nightly.night import NightSummary, ThroughputEstimate
from flows.nightly.verdict import Verdict
from tiling.archives.slide import Slide
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.storage.file_version import FileVersion


def slide(name: str, size: int) -> Slide:
    return Slide(name, Path(name), FileVersion(size, "1", 0.0))


@pytest.mark.parametrize(
    ("night", "verdict", "code"),
    [
        (night_of(DONE), Verdict.COMPLETE, 0),
        (night_of(DONE, BAD), Verdict.FAILED, 3),
        (night_of(DONE, BAD, is_rerun=True), Verdict.FAILED_AGAIN, 3),
        (night_of(DONE, is_rerun=True), Verdict.COMPLETE, 0),
        (night_of(DONE, BAD, stood=frozenset({"bad.svs"})), Verdict.COMPLETE, 0),
        (night_of(DONE, known_failures=(BAD,)), Verdict.COMPLETE, 0),
        (night_of(DONE, replace(BAD, acknowledged=True)), Verdict.COMPLETE, 0),
        (night_of(left=WorkLeft(2, 1, 10, 5.0, 1)), Verdict.BACKLOG, 4),
        (night_of(BAD, left=WorkLeft(2, 1, 10, 5.0, 1)), Verdict.FAILED, 3),
        (night_of(DONE, flags={"b.svs": ("no object",)}), Verdict.LOOK, 0),
    ],
)
def test_what_is_new_or_left_decides_and_what_stood_does_not(night: NightSummary, verdict: Verdict, code: int) -> None:
    assert night.verdict is verdict
    assert exit_code_of(night, strict=False) == code


def test_flags_change_the_exit_code_only_when_asked() -> None:
    assert exit_code_of(night_of(DONE, flags={"b.svs": ("black",)}), strict=True) == 5


def test_a_rerun_is_advised_only_where_it_can_help() -> None:
    (advice,) = night_of(BAD).advice
    assert "repair or replace the file" in advice
    assert "rerun" not in advice
    (advice,) = night_of(replace(BAD, lasting=False)).advice
    assert advice == "try bad.svs again with: overtile rerun '/data/my out' --failed"
    partly = replace(BAD, lasting=False, failed_tiles=4, unreadable_tiles=4)
    (advice,) = night_of(partly).advice
    assert advice.startswith(
        "parts of bad.svs can't be read, and another try would end alike: repair or replace the file"
    )
    (advice,) = night_of(replace(partly, unreadable_tiles=3)).advice
    assert "rerun" in advice, "the fourth may end otherwise"
    assert night_of(replace(BAD, acknowledged=True)).advice == ()
    assert night_of(SlideRecord("l.svs", SlideState.REFUSED, "", reason="a link")).advice == ()


def test_what_is_left_counts_begun_slides_by_their_tiles() -> None:
    begun = SlideRecord("a", SlideState.BEGUN, "slides/a", size_bytes=1000, tiles=100, left_tiles=25)
    left = work_left([slide("b", 750)], [begun], Rates(0.1, 2.0, 600.0))
    assert left == WorkLeft(slides=2, begun=1, tiles=100, seconds=2000.0, nights=4)
    assert str(left) == "2 slides left (1 begun): about 100 tiles, 33:20 of computing, 4 nights at this rate"
    assert work_left([], [], Rates()) == WorkLeft()


def test_what_no_night_has_measured_is_said_not_to_be_known() -> None:
    left = work_left([slide("b", 750)], [], Rates())
    assert (left.tiles, left.seconds, left.nights) == (None, None, None)
    assert str(left) == "1 slide left: tiles not known yet, no rate is known yet"


def test_of_a_begun_slide_the_estimate_takes_what_is_left() -> None:
    whole, half = slide("whole", 1000), slide("half", 1000)
    assert ThroughputEstimate([whole, half]).bytes_left == 2000
    assert ThroughputEstimate([whole, half], {"half": 0.25}).bytes_left == 1250


def test_of_a_slide_that_has_failed_the_estimate_takes_nothing_more() -> None:
    pace = ThroughputEstimate([slide("cut", 3000), slide("sound", 1000)])
    pace.end("cut")
    pace.end("cut")
    assert pace.bytes_left == 1000
