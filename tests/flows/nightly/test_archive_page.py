"""Table and commands of a night, for any archive's name and for slides that nobody tried again."""

from __future__ import annotations

import csv
import shlex
from dataclasses import replace
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


def test_table_and_page_say_at_which_pixel_size_each_slide_was_segmented(tmp_path: Path) -> None:
    """Figures of slides of two pixel sizes can't be compared, which nothing else in the table would say."""
    archive = Archive.create_or_resume(
        tmp_path, ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})
    )
    sizes = {"a.svs": (0.25, 0.25, "um"), "b.svs": (10.0, 12.5, "m"), "c.png": None}
    records = [
        SlideRecord(name, SlideState.DONE, f"slides/{name}", tiles=1, pixel_size=size) for name, size in sizes.items()
    ]
    for record in records:
        archive.ledger.append(record)
    archive.ledger.flush()
    night = replace(night_of(tmp_path), records=tuple(records))
    publish(Archive.open(tmp_path), night)
    for table in (tmp_path / "nights/2026-11-26_220000.csv", tmp_path / "slides.csv"):
        rows = list(csv.DictReader(table.open()))
        assert [(row["pixel_size_y"], row["pixel_size_x"], row["pixel_size_unit"]) for row in rows] == [
            ("0.25", "0.25", "um"),
            ("10.0", "12.5", "m"),
            ("", "", ""),
        ]
    page = (tmp_path / "nights/latest.html").read_text()
    assert "<th>pixel size</th>" in page
    assert all(f'<td class="n">{told}</td>' in page for told in ("0.25 µm", "12.5 × 10 m", "not known"))
    assert {record.slide: record.pixel_size for record in Archive.open(tmp_path).ledger} == sizes


def test_the_command_that_tries_again_may_be_pasted_whatever_the_folder_is_called() -> None:
    folder = "/data/my slides; rm -rf $HOME"
    assert shlex.split(night_of(Path(folder)).rerun_command) == ["overtile", "rerun", folder, "--failed"]
