"""Table and commands of a night, for any archive's name and for slides that nobody tried again."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from flows.nightly.night import NightSummary
from flows.nightly.page import publish
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide_ledger import SlideRecord, SlideState


def night_of(archive: Path, *known_failures: SlideRecord) -> NightSummary:
    done = SlideRecord("b.svs", SlideState.DONE, "slides/b.svs")
    return NightSummary(archive, "2026-11-26_220000", (done,), known_failures, 0, 0, "its work", 1.0, 1.0, 1, 1.0, 0.0)


def test_the_table_names_every_slide_for_which_a_night_is_not_complete(tmp_path: Path) -> None:
    card = ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})
    archive = Archive.create_or_resume(tmp_path, card)
    night = night_of(tmp_path, SlideRecord("a.svs", SlideState.FAILED, "slides/a.svs", reason="cut off", lasting=True))
    publish(archive, night)
    assert not night.complete
    rows = list(csv.DictReader((tmp_path / "nights/2026-11-26_220000.csv").open()))
    assert [(row["slide"], row["state"], row["reason"]) for row in rows] == [
        ("a.svs", "failed", "cut off"),
        ("b.svs", "done", ""),
    ]


def test_the_command_that_tries_again_may_be_pasted_whatever_the_folder_is_called() -> None:
    folder = "/data/my slides; rm -rf $HOME"
    assert shlex.split(night_of(Path(folder)).rerun_command) == ["overtile", "rerun", "--archive", folder, "--failed"]
