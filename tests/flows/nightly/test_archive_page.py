"""Table and commands of a night, for any archive's name and for slides that nobody tried again."""

from __future__ import annotations

import csv
import html
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from flows.nightly import index
from flows.nightly.night import NightSummary
from flows.nightly.page import page_of, publish
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide_record import SlideRecord, SlideState


def archive_at(path: Path) -> Archive:
    card = ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})
    return Archive.create_or_resume(path, card)


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
    assert all(f'<td class="n">{output}</td>' in page for output in ("0.25 µm", "12.5 × 10 m", "not known"))
    assert {record.slide: record.pixel_size for record in Archive.open(tmp_path).ledger} == sizes


def test_the_command_that_tries_again_may_be_pasted_whatever_the_folder_is_called() -> None:
    folder = "/data/my slides; rm -rf $HOME"
    assert shlex.split(night_of(Path(folder)).rerun_command) == ["overtile", "rerun", folder, "--failed"]


def test_one_table_says_all_of_a_slide_for_a_spreadsheet_and_for_statistics(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    classes = {"nucleus": {"objects": 7, "area": 0.5, "share": 0.1}}
    measures = {"classes": classes, "unit": "mm2", "tissue_area": 5.0, "objects": 7, "specks": 0.9, "scale": 1.0}
    done = SlideRecord("b.svs", SlideState.DONE, "slides/b.svs", measures=measures, stage_seconds={"compute": 3.5})
    archive.ledger.append(done)
    archive.ledger.append(SlideRecord("a.svs", SlideState.FAILED, "slides/a.svs", reason="cut off"))
    archive.ledger.flush()
    publish(archive, replace(night_of(tmp_path), records=(done,)))
    bad, row = csv.DictReader((tmp_path / "slides.csv").open())
    assert (bad["slide"], bad["objects"], bad["objects of nucleus"]) == ("a.svs", "", "")
    assert (row["model"], row["objects of nucleus"], row["area of nucleus"]) == ("m", "7", "0.5")
    assert (row["tissue_area"], row["area_unit"], row["seconds of compute"]) == ("5.0", "mm2", "3.5")
    assert row["flags"] == "most objects are specks"
    columnar = parquet.read_table(tmp_path / "slides.parquet")
    assert columnar.column_names == list(row)
    assert columnar.schema.field("objects").type == "int64"
    assert columnar.to_pylist()[0]["objects"] is None


def test_the_page_lists_new_failures_apart_and_says_how_to_leave_a_known_one(tmp_path: Path) -> None:
    name = "it's <b>old</b>.svs"
    old = SlideRecord(name, SlideState.FAILED, "slides/old", reason="cut off", lasting=True)
    new = SlideRecord("new.svs", SlideState.FAILED, "slides/new", reason="2 tiles failed", tiles=4, failed_tiles=2)
    (tmp_path / "slides/new").mkdir(parents=True)
    (tmp_path / "slides/new/overlay.png").write_bytes(b"")
    night = replace(night_of(tmp_path, old), records=(new,), warnings=("the night of Monday died: no power",))
    page = "".join(page_of(night))
    assert page.index("<h2>New failures") < page.index(">new.svs<") < page.index("Known failures")
    assert html.escape(f"overtile archive --out {tmp_path} --acknowledge={shlex.quote(name)}") in page
    assert "the night of Monday died: no power" in page
    assert 'src="../slides/new/overlay.png"' in page, "a failed slide has its picture where there is one"
    assert "1 slide failed for the first time." in page
    again = "".join(page_of(replace(night, is_rerun=True)))
    assert "1 slide failed again." in again
    assert "first time" not in again
    assert "<b>old" not in page


def test_the_index_knows_every_night_and_pages_are_kept_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "NIGHTS_KEPT", 3)
    archive = archive_at(tmp_path)
    for number in range(5):
        name = f"2026-11-2{number}_010000"
        archive.ledger.announce("night", {"night": name, "began": 86400.0 * number, "config": {}})
        if number == 3:
            continue
        night = replace(night_of(tmp_path), name=name)
        publish(archive, night)
        facts = {"night": name, "told": str(night), "verdict": "complete", "counts": night.counts}
        archive.ledger.announce("morning", facts)
    rows = [*csv.DictReader((tmp_path / "nights.csv").open())]
    assert [row["verdict"] for row in rows] == ["complete", "complete", "complete", "died", "complete"]
    assert sorted(path.name for path in (tmp_path / "nights").glob("2*.html")) == [
        "2026-11-22_010000.html",
        "2026-11-24_010000.html",
    ]
    assert (tmp_path / "nights/latest.html").is_file()
    assert 'href="2026-11-24_010000.html"' in (tmp_path / "nights/index.html").read_text()
