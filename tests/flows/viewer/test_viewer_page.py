"""The page in a real browser, without any network but the viewer's: look, zoom, switch, rerun, by hand and by key."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cli import Cli
from drawn import draw_run
from finished import numbered
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect
from shown import Shown, shown

from tiling.export.export_run import export_run
from tiling.runs.ledger import TileState
from tiling.runs.run import Run

FAILED = {(1, 1): "SourceError: segment 5 doesn't decode", (2, 3): "its worker died 3 times <b>"}
expect.set_options(timeout=20_000)
ANYTHING = re.compile(".")
STILL = "window.stillThere = true"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    draw_run(folder / "sound", height=600, width=900)
    draw_run(folder / "broken", failed=FAILED, skipped=((0, 0),))
    return folder


@pytest.fixture(scope="module")
def viewer(archive: Path) -> Iterator[Shown]:
    with shown(archive) as viewer:
        yield viewer


@pytest.fixture
def page(browser: Browser, viewer: Shown) -> Iterator[Page]:
    with opened(browser, viewer) as page:
        yield page


@contextmanager
def opened(browser: Browser, viewer: Shown) -> Generator[Page]:
    """A page that reaches the viewer alone, come by its link, and at whose end nothing has gone wrong in it."""
    context = browser.new_context(viewport={"width": 1200, "height": 760}, base_url=viewer.address)
    wrong: list[str] = []

    def only_ours(route: Route) -> None:
        if route.request.url.startswith((viewer.address, "data:", "blob:")):
            route.continue_()
        else:
            wrong.append(f"asked for {route.request.url}")
            route.abort()

    context.route("**/*", only_ours)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        page.goto(viewer.link)
        expect(page).to_have_url(re.compile(rf"{re.escape(viewer.address)}(run)?$"))  # the key is gone from it
        yield page
    finally:
        context.close()
    assert wrong == []


def look_at(page: Page, run: str) -> None:
    page.goto(f"/run?run={run}")
    expect(page.locator("body")).to_have_attribute("data-mask", ANYTHING)
    settle(page)


def settle(page: Page) -> None:
    """Wait until what is on the screen stays the same."""
    seen: list[bytes] = []
    for _ in range(80):
        page.wait_for_timeout(150)
        seen.append(page.locator("#stage").screenshot())
        if len(seen) > 3 and len(set(seen[-4:])) == 1:
            return
    pytest.fail("the page never came to rest")


def stage(page: Page, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    settle(page)
    page.locator("#stage").screenshot(path=path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def at_tile(page: Page, row: int, col: int) -> tuple[float, float]:
    """Where a tile's middle is on the screen, when everything is shown: 512 x 384 px, fitted."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    scale = min(box["width"] / 512, box["height"] / 384)
    left, top = box["x"] + (box["width"] - 512 * scale) / 2, box["y"] + (box["height"] - 384 * scale) / 2
    return left + (col + 0.5) * 128 * scale, top + (row + 0.5) * 128 * scale


def test_the_grid_is_there_only_where_something_failed_until_somebody_asks_for_it(page: Page) -> None:
    look_at(page, "broken")
    expect(page.get_by_label("Grid")).to_be_checked()
    look_at(page, "sound")
    expect(page.get_by_label("Grid")).not_to_be_checked()
    page.get_by_label("Grid").check()


def test_it_opens_zooms_and_switches_a_class(page: Page, tmp_path: Path) -> None:
    look_at(page, "broken")
    expect(page).to_have_title("broken · overtile")
    expect(page.locator("#summary")).to_have_text("2 failed · 10 of 12 tiles")
    with_class = stage(page, tmp_path / "with.png")
    page.get_by_label("nucleus").uncheck()
    expect(page.locator("body")).to_have_attribute("data-mask", re.compile('"labels":"255"'))
    without_class = stage(page, tmp_path / "without.png")
    share = (np.abs(with_class.astype(int) - without_class).max(axis=2) > 20).mean()
    assert 0.1 < share < 0.6, "half of ten tiles was painted"
    page.get_by_label("nucleus").check()
    expect(page.locator("body")).to_have_attribute("data-mask", re.compile('"labels":"1,255"'))
    np.testing.assert_array_equal(stage(page, tmp_path / "again.png"), with_class)
    wide = page.locator("#ruler-text").inner_text()
    for _ in range(4):
        page.get_by_role("button", name="Zoom in").click()
    expect(page.locator("#ruler-text")).not_to_have_text(wide)
    settle(page)
    page.mouse.move(*at_tile(page, 1, 2))
    expect(page.locator("#pointer")).to_have_text(re.compile(r"x \d+ {2}y \d+ px .* mm .* (nucleus|background)$"))


def test_the_object_under_the_pointer_shows_its_outline_and_values(browser: Browser, tmp_path: Path) -> None:
    run = draw_run(tmp_path / "run")
    numbered(run)
    with run.open_source() as source:
        export_run(run, source, "table")
    with shown(tmp_path / "run") as viewer, opened(browser, viewer) as page:
        expect(page.locator("body")).to_have_attribute("data-mask", ANYTHING)
        before = stage(page, tmp_path / "before.png")
        x, y = at_tile(page, 0, 0)
        step = at_tile(page, 0, 1)[0] - x
        page.mouse.move(x - step / 8, y - step * 3 / 8)  # in the second square of the first row, of 32 px each
        expect(page.locator("#object-name")).to_have_text("nucleus 1")
        for value in ("Area", "1,024 px", "Solidity", "red"):
            expect(page.locator("#object-values")).to_contain_text(value)
        assert not np.array_equal(stage(page, tmp_path / "outlined.png"), before)
        page.mouse.move(x - step * 3 / 8, y - step * 3 / 8)
        expect(page.locator("#object")).to_be_hidden()


@pytest.mark.slow
def test_a_failed_tile_shows_its_reason_and_is_repaired_without_reloading(
    browser: Browser, archive: Path, cli: Cli, tmp_path: Path
) -> None:
    with shown(archive / "broken", cli.environment) as viewer, opened(browser, viewer) as page:
        mend(page, archive, tmp_path)


def mend(page: Page, archive: Path, tmp_path: Path) -> None:
    run = Run.open(archive / "broken")
    others = {tile.index: run.open_mask().read(tile.valid) for tile in run.plan.tiles() if tile.name != "1,1"}
    look_at(page, "broken")
    page.evaluate(STILL)
    hatched = stage(page, tmp_path / "hatched.png")
    page.mouse.click(*at_tile(page, 1, 1))
    expect(page.locator("#selected-name")).to_have_text("Tile 1,1")
    expect(page.locator("#selected-reason")).to_have_text(FAILED[1, 1])
    page.get_by_role("button", name="Rerun this tile").click()
    expect(page.locator("#job")).to_contain_text("Tile 1,1 is being computed again")
    expect(page.get_by_role("button", name="Rerun all failed tiles")).to_be_disabled()
    # One more tile stays failed, so the command line ends with the code of a run with failed tiles.
    expect(page.locator("#summary")).to_have_text("1 failed · 11 of 12 tiles", timeout=240_000)
    expect(page.locator("#job")).to_contain_text("computed again in", timeout=240_000)
    expect(page.locator("#selected-state")).to_have_text("done")
    page.get_by_role("button", name="Close").first.click()
    repaired = stage(page, tmp_path / "repaired.png")
    assert page.evaluate("window.stillThere") is True
    x, y = (round(value) for value in at_tile(page, 1, 1))
    assert not np.array_equal(repaired[y - 60 : y + 60, x - 60 : x + 60], hatched[y - 60 : y + 60, x - 60 : x + 60])
    state = Run.open(archive / "broken").ledger.fold()
    assert state.states[run.plan.at(1, 1).index] == TileState.DONE
    mask = Run.open(archive / "broken").open_mask(read_only=True)
    assert 255 not in mask.read(run.plan.at(1, 1).valid)
    for index, labels in others.items():
        np.testing.assert_array_equal(mask.read(run.plan.tile(index).valid), labels)


def test_every_part_is_reached_by_keys(page: Page) -> None:
    look_at(page, "broken")
    page.keyboard.press("Tab")
    reached: list[str] = []
    while page.evaluate("document.activeElement !== document.body"):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"{reached[-1]} doesn't show that it has the focus"
        page.keyboard.press("Tab")
    for wanted in ("viewer", "zoom-in", "slide-on", "mask-on", "opacity", "grid-on", "report", "help-open"):
        assert wanted in reached, reached
    page.keyboard.press("n")
    expect(page.locator("#selected")).to_be_visible()
    expect(page.locator("#selected-reason")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator("#selected")).to_be_hidden()
    page.keyboard.press("m")
    expect(page.get_by_label("Mask", exact=True)).not_to_be_checked()
    page.keyboard.press("1")
    expect(page.get_by_label("nucleus")).not_to_be_checked()
    page.keyboard.press("]")
    expect(page.locator("#opacity-text")).to_have_text("60 %")
    before = page.locator("#ruler-text").inner_text()
    for _ in range(3):
        page.keyboard.press("+")
    expect(page.locator("#ruler-text")).not_to_have_text(before)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("#keys tr")).to_have_count(17)


def test_an_archive_is_a_table_that_leads_to_its_runs(page: Page) -> None:
    page.goto("/")
    rows = page.locator("#runs tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("broken")
    expect(rows.nth(1)).to_contain_text("complete")
    expect(page.locator("#runs img")).to_have_count(2)
    for picture in page.locator("#runs img").all():
        expect(picture).to_have_js_property("naturalWidth", 320)
    page.get_by_role("button", name="State").click()
    page.get_by_role("button", name="State").click()
    expect(rows.nth(0)).to_contain_text("sound")
    page.get_by_role("searchbox").fill("brok")
    expect(rows).to_have_count(1)
    page.get_by_role("link", name="broken", exact=True).click()
    expect(page.locator("body")).to_have_attribute("data-mask", ANYTHING)
    expect(page.get_by_role("link", name="All runs")).to_be_visible()


@pytest.mark.parametrize("place", ["/", "/run?run=broken", "/report?run=broken"])
def test_a_phone_shows_it_without_scrolling_sideways(page: Page, place: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(place)
    page.wait_for_load_state("networkidle")
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
