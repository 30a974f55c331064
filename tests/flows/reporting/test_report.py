"""The report says what the run holds, in one file, and obeys nothing that comes from outside."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from cli import on_disk
from drawn import draw_run

from flows.reporting import report
from flows.reporting.report import FAILED_SHOWN, PICTURE_BYTES, REPORT_NAME, render_report, write_report
from flows.reporting.tile_grid import MOST_CELLS_PER_SIDE, TileGrid
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from unet_core.bundles.card import read_card

HOSTILE = '"><script>alert(1)</script>\x1b[2J\u202e{{ 7 * 7 }}'


class Page(HTMLParser):
    """The texts and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report") / "slide 7"
    return draw_run(folder, failed={(1, 1): "SourceError: segment 5 doesn't decode"}, skipped=((2, 3),))


def test_it_says_what_the_run_holds(run: Run) -> None:
    page = Page(render_report(run))
    for text in (
        "1 failed tile",
        "SourceError: segment 5 doesn't decode",
        f"overtile rerun '{run.path}' --failed",
        run.card.image.fingerprint,
        run.card.model.digest,
        "float32, as asked",
        "Cell nuclei in RGB microscopy",
        "Limited by",
        "overtile 0.1.0",
    ):
        assert text in page.text, text
    assert "10 of 12" in page.text


def test_areas_are_those_of_the_mask(run: Run) -> None:
    labels = np.asarray(run.open_mask(read_only=True).levels[0][:])
    nuclei, missing = int((labels == 1).sum()), int((labels == 255).sum())
    computed = labels.size - missing - 128 * 128
    page = Page(render_report(run)).text
    assert f"nucleus {nuclei * 0.25e-6:.5f} mm² {nuclei:,} {nuclei / computed:.2%}" in page
    assert f"skipped as empty {128 * 128 * 0.25e-6:.5f} mm² {128 * 128:,} –" in page
    assert f"not predicted {missing * 0.25e-6:.5f} mm² {missing:,} –" in page


def test_objects_come_from_the_exported_statistics_while_they_are_of_this_mask(run: Run) -> None:
    nuclei = int((np.asarray(run.open_mask(read_only=True).levels[0][:]) == 1).sum())
    table = on_disk(run.exports) / "statistics.csv"
    table.parent.mkdir(exist_ok=True)
    for pixels, is_shown in ((nuclei, True), (nuclei - 1, False)):
        with table.open("w", newline="") as file:
            rows = csv.DictWriter(file, ["label", "class", "pixels", "objects"])
            rows.writeheader()
            rows.writerow({"label": 0, "class": "background", "pixels": 5, "objects": ""})
            rows.writerow({"label": 1, "class": "nucleus", "pixels": pixels, "objects": 4321})
        assert ("4,321" in Page(render_report(run)).text) is is_shown
    table.unlink()


def test_the_same_run_gives_the_same_bytes_and_needs_no_network(run: Run) -> None:
    write_report(run)
    first = on_disk(run.path / REPORT_NAME).read_bytes()
    write_report(Run.open(run.path))
    assert on_disk(run.path / REPORT_NAME).read_bytes() == first
    page = Page(first.decode())
    assert "script" not in page.tags
    assert not {"link", "iframe", "object"} & set(page.tags)
    addresses = [value for _, name, value in page.attributes if name in {"src", "href"}]
    assert [address[:16] for address in addresses] == ["data:image/jpeg;"]
    assert "url(" not in first.decode()
    assert len(addresses[0]) < PICTURE_BYTES * 4 / 3 + 100


def test_nothing_from_outside_is_obeyed(tmp_path: Path) -> None:
    classes = (("background", "#000000"), (HOSTILE, "#123456"))
    name = HOSTILE.replace("/", "") + ".png"
    draw_run(tmp_path / "run", failed={(0, 0): HOSTILE}, classes=classes, image=name)
    card = tmp_path / "run" / "run.json"
    card.write_text(card.read_text().replace("#123456", "red;background:url(//evil)"))
    html = render_report(Run.open(tmp_path / "run"))
    page = Page(html)
    assert "script" not in page.tags
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", html)
    assert "evil" not in html
    assert "{{ 7 * 7 }}" in page.text
    assert all(name not in {"onerror", "onload"} for _, name, _ in page.attributes)
    assert r"\x1b[2J\u202e" in page.text


def test_very_many_tiles_and_failures_stay_one_small_page(run: Run) -> None:
    states = np.full((1000, 700), TileState.DONE, np.uint8)
    states[317, 44] = TileState.FAILED
    states[:16, :16] = TileState.SKIPPED
    grid = TileGrid.of(states.ravel(), (1000, 700))
    assert grid.step == 16
    assert max(grid.shape) <= MOST_CELLS_PER_SIDE
    assert grid.states[-1].name == "failed"
    assert grid.states[-1].path == "M2 19h1v1h-1z"
    assert {cells.name: cells.tiles for cells in grid.states} == {"done": 699_743, "failed": 1, "skipped as empty": 256}
    assert sum(len(cells.path) for cells in grid.states) < 100_000


def test_of_many_failed_tiles_the_first_are_named(tmp_path: Path) -> None:
    failed = {(row, col): "it broke" for row in range(15) for col in range(16)}
    run = draw_run(tmp_path / "run", height=480, width=512, core=32, failed=failed)
    page = Page(render_report(run))
    assert page.text.count("it broke") == FAILED_SHOWN
    assert "40 more are in the ledger" in page.text
    assert "240 failed tiles" in page.text.lower()


def test_a_run_without_picture_or_model_has_a_report_all_the_same(tmp_path: Path) -> None:
    run = draw_run(tmp_path / "run", pending=((0, 0),))
    on_disk(run.overlay_path).write_bytes(b"no picture")
    card = json.loads(on_disk(run.path / "run.json").read_text())
    card["model"]["reference"] = "/gone"
    card["image"]["pixel_size"] = None
    on_disk(run.path / "run.json").write_text(json.dumps(card))
    run = Run.open(run.path)
    run.ledger.append(TileRecord(1, TileState.DAMAGED, reason="bit rot"))
    run.ledger.flush()
    page = Page(render_report(run))
    assert "There is no overlay.png" in page.text
    assert "1 damaged tile" in page.text
    assert "--damaged" in page.text
    assert "MPix" in page.text


def test_a_models_scores_are_those_on_images_that_were_held_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_model_card", lambda run: read_card("nuclei"))
    text = Page(render_report(run)).text
    assert "On images that were held back" in text
    assert "all 52 0.850 0.802" in text
    monkeypatch.setattr(report, "_model_card", lambda run: read_card("vessels"))
    assert "On its validation images" in Page(render_report(run)).text
