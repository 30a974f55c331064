"""A night's page in a browser: a click on a column's head sorts, the slowest slide first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nights import archive_at
from playwright.sync_api import Browser, Page
from summaries import BAD, DONE, night_of

from flows.nightly.page import publish
from tiling.storage.place import Place

SECONDS = {"a.svs": 9.0, "b.svs": 1234.5, "c.svs": 0.0, "d 10.svs": 100.0, "d 9.svs": 30.0}


def page_at(folder: Path) -> Place:
    archive = archive_at(folder)
    slides = [replace(DONE, slide=name, seconds=seconds, tiles=4, pixels=10**6) for name, seconds in SECONDS.items()]
    night = replace(night_of(*slides, BAD), archive=archive.path)
    publish(archive, night)
    return night.page


def order(page: Page) -> list[str]:
    return page.locator("h2:text-is('Slides of this night') + table td.slide").all_inner_texts()


def test_a_click_sorts_with_the_slowest_first_and_a_second_one_turns_the_order(
    browser: Browser, tmp_path: Path
) -> None:
    page, faults = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"file://{page_at(tmp_path)}")
    assert order(page) == ["a.svs", "b.svs", "c.svs", "d 10.svs", "d 9.svs"]
    seconds, slide = (
        page.locator(f"h2:text-is('Slides of this night') + table th:text-is('{name}')")
        for name in ("seconds", "slide")
    )
    seconds.click()
    assert order(page) == ["b.svs", "d 10.svs", "d 9.svs", "a.svs", "c.svs"]
    seconds.click()
    assert order(page) == ["c.svs", "a.svs", "d 9.svs", "d 10.svs", "b.svs"]
    slide.focus()
    page.keyboard.press("Enter")
    assert order(page) == ["a.svs", "b.svs", "c.svs", "d 9.svs", "d 10.svs"], "numbers in names as people count"
    assert (slide.get_attribute("aria-sort"), seconds.get_attribute("aria-sort")) == ("ascending", None)
    assert page.locator("h2:text-is('New failures') + table td.slide").all_inner_texts() == ["bad.svs"]
    assert not faults
