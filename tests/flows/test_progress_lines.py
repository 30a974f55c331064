"""Progress off a terminal: a line per slide, and a heartbeat that a clock gives."""

from __future__ import annotations

import datetime as dt

import pytest

from flows.commands.lines import ProgressLines
from flows.nightly.watch import line_of
from flows.reporting.progress import Progress
from tiling.archives.slide_record import SlideRecord, SlideState


def test_slides_are_lines_and_the_rest_waits_for_the_heartbeat() -> None:
    said: list[str] = []
    with ProgressLines(said.append, lambda: dt.datetime(2026, 1, 1, 1, 5, tzinfo=dt.UTC)) as lines:
        lines.beat()
        lines.show(Progress("plan", 0, 0))
        lines.beat()
        lines.show(Progress("segment", 1, 3, unit="slides", ended=("a.svs: done",)))
        lines.show(Progress("segment", 2, 3, unit="slides"))
        lines.beat()
    assert said == [
        "01:05 starting Prefect and Ray",
        "01:05 plan",
        "a.svs: done",
        "01:05 segment: 2/3 slides",
    ]


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            SlideRecord("a", SlideState.DONE, "f", tiles=4, pixels=2_500_000, seconds=61, measures={"objects": 1200}),
            "a: done, 4 tiles, 2.5 MPix in 1:01, 1,200 objects",
        ),
        (SlideRecord("a", SlideState.FAILED, "f", reason="cut off"), "a: failed, cut off"),
        (SlideRecord("a", SlideState.SAME, "f", reason="b"), "a: same, same content as b"),
        (SlideRecord("a", SlideState.BEGUN, "f", tiles=9, left_tiles=5), "a: begun, 5 of 9 tiles left"),
        (SlideRecord("a\n\x1b[31m", SlideState.GONE, "f"), "a\\n\\x1b[31m: gone"),
    ],
)
def test_a_slide_that_ended_is_one_line(record: SlideRecord, line: str) -> None:
    assert line_of(record) == line
