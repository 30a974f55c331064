"""Summaries of nights that nobody held, made of records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flows.nightly.night import NightSummary
from tiling.archives.slide_record import SlideRecord, SlideState

BAD = SlideRecord("bad.svs", SlideState.FAILED, "slides/bad.svs", reason="cut off", lasting=True)
DONE = SlideRecord("b.svs", SlideState.DONE, "slides/b.svs", seconds=12.0)


def night_of(*records: SlideRecord, **more: object) -> NightSummary:
    night = NightSummary(
        Path("/data/my out"), "2026-11-26_220000", records, (), 0, 0, "its work", 1.0, 1.0, 1, 1.0, 0.0, zone="CET"
    )
    return replace(night, **more)  # type: ignore[arg-type]
