"""An archive's table names also the slides that no run came of, with the reason."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium
from drawn import draw_run
from playwright.sync_api import expect
from shown import ADDRESS, let_in, shown
from starlette.testclient import TestClient

from flows.viewer.guard import TOKEN_HEADER
from flows.viewer.library import Library
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import RunError
from tiling.storage.place import lock_run

REASON = "SourceError: broken <b>.svs is no image"
LACKING = {
    "name": "ward/broken.svs",
    "state": "failed",
    "error": REASON,
    "failed_slide": "ward/broken.svs",
    "acknowledged": False,
}


def made(folder: Path) -> Archive:
    card = ArchiveCard(created="2026-03-01T20:00:00+00:00", model="nuclei", model_digest="0", maths_version=1, asked={})
    return Archive.create_or_resume(folder, card)


def append_records(archive: Archive, *records: SlideRecord) -> None:
    for record in records:
        archive.ledger.append(record)
    archive.ledger.flush()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = made(tmp_path / "archive")
    (tmp_path / "archive" / "slides").mkdir()
    draw_run(tmp_path / "archive" / "slides" / "sound.svs")
    append_records(
        archive,
        SlideRecord("sound.svs", SlideState.FAILED, "slides/sound.svs", reason="1 of 12 tiles failed"),
        SlideRecord("duplicate.svs", SlideState.SAME, "slides/sound.svs", reason="sound.svs"),
        SlideRecord("ward/broken.svs", SlideState.FAILED, "slides/ward/broken.svs", reason=REASON),
    )
    return archive


def rows_of(client: TestClient, **parameters: Any) -> list[dict[str, Any]]:
    return client.get("/api/runs", params=parameters).json()["rows"]


def test_a_slide_that_did_not_open_is_a_line_with_its_state_and_reason(archive: Archive) -> None:
    with let_in(Library(archive.path)) as client:
        run, *lacking = rows_of(client)
        assert run["name"] == "slides/sound.svs"
        assert "error" not in run
        assert run["pixel_size"] == {"y": 0.5, "x": 0.5, "unit": "um"}
        assert lacking == [LACKING]
        assert client.get("/api/runs").json()["runs"] == 2
        assert rows_of(client, start=1) == [LACKING]
        assert rows_of(client, start=2) == []
        append_records(archive, SlideRecord("ward/broken.svs", SlideState.SAME, "slides/sound.svs"))
        assert len(rows_of(client)) == 1, "the page follows the archive's ledger"


def test_a_name_that_is_no_utf_8_keeps_no_run_from_being_shown(archive: Archive) -> None:
    assert isinstance(archive.path, Path)
    slides = archive.path / "slides"
    shutil.copytree(slides / "sound.svs", slides / os.fsdecode(b"odd\xff"))
    with let_in(Library(archive.path)) as client:
        names = [row["name"] for row in rows_of(client)]
        assert names[:2] == [r"slides/odd\udcff", "slides/sound.svs"]
        for page in ("/api/run", "/api/state", "/report"):
            assert client.get(page, params={"run": names[0]}).status_code == 200


def test_a_run_that_is_to_be_looked_at_says_why(archive: Archive) -> None:
    done = SlideRecord("sound.svs", SlideState.DONE, "slides/sound.svs", measures={"objects": 0})
    with let_in(Library(archive.path)) as client:
        assert "flags" not in rows_of(client)[0]
        append_records(archive, done)
        assert rows_of(client)[0]["flags"] == ["no object"]


def test_a_failure_is_acknowledged_by_the_page_of_this_start_alone(archive: Archive) -> None:
    with let_in(Library(archive.path)) as client:
        found = re.search(r'name="overtile-token" content="([\w-]{43})"', client.get("/").text)
        assert found
        ours, at = {TOKEN_HEADER: found[1]}, ADDRESS.rstrip("/")

        def asked(slide: object, **headers: str) -> int:
            return client.post("/api/acknowledge", json={"slide": slide}, headers=headers).status_code

        refused = ({}, {TOKEN_HEADER: "guessed"}, {**ours, "origin": "http://evil.example"}, {**ours, "origin": "null"})
        assert [asked("ward/broken.svs", **headers) for headers in refused] == [403] * 4
        assert [asked(slide, **ours) for slide in ("", 7, None, "no.svs", "duplicate.svs")] == [422, 422, 422, 409, 409]
        assert client.get("/api/acknowledge").status_code == 405
        assert rows_of(client)[1] == LACKING, "nothing was stored so far"
        with lock_run(archive.path):
            assert asked("ward/broken.svs", **ours) == 409, "a night is at work"
        assert asked("ward/broken.svs", **ours, origin=at) == 200
        assert rows_of(client)[1] == {**LACKING, "acknowledged": True}
        without = TestClient(client.app, ADDRESS)
        assert without.post("/api/acknowledge", json={"slide": "sound.svs"}, headers=ours).status_code == 403
    record = Archive.open(archive.path).ledger.get("sound.svs")
    assert record is not None
    assert not record.acknowledged


def test_an_archive_of_which_no_slide_opened_is_shown(tmp_path: Path) -> None:
    archive = made(tmp_path / "archive")
    with pytest.raises(RunError, match=r"holds no run .* and no runs"):
        Library(archive.path)
    append_records(archive, SlideRecord("ward/broken.svs", SlideState.FAILED, "slides/ward/broken.svs", reason=REASON))
    with let_in(Library(archive.path)) as client:
        assert rows_of(client) == [LACKING]
        assert client.get("/api/run").status_code == 404


def test_a_damaged_ledger_leaves_the_runs_to_look_at(archive: Archive) -> None:
    (archive.path / "ledger" / "00000099.jsonl").write_bytes(b"{}\n")
    with let_in(Library(archive.path)) as client:
        run, record = rows_of(client)
        assert run["name"] == "slides/sound.svs"
        assert "holds a line that is no record" in record["error"]


@pytest.mark.slow
def test_the_page_shows_the_line_beside_the_runs(archive: Archive) -> None:
    with shown(Path(str(archive.path))) as viewer, chromium() as browser:
        page = browser.new_page()
        page.goto(viewer.link)
        rows = page.locator("#runs tbody tr")
        expect(rows).to_have_count(2, timeout=20_000)
        expect(rows.nth(1)).to_contain_text("failed")
        expect(rows.nth(1)).to_contain_text(REASON)
        expect(page.locator("#summary")).to_have_text("1 run · 1 complete · 1 failed without a run")
        page.get_by_role("button", name="Acknowledge the failure of ward/broken.svs").click()
        expect(rows.nth(1).locator(".acknowledged")).to_have_text("acknowledged")
        record = Archive.open(archive.path).ledger.get("ward/broken.svs")
        assert record is not None
        assert record.acknowledged
