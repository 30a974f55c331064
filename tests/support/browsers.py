"""A real browser without a window; tests skip where Chromium is absent."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # this file is loaded for all tests, and few need a browser
    from playwright.sync_api import Browser


@contextmanager
def chromium() -> Generator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("Chromium is absent: `make browser` installs it, as root on Debian")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests of a file, in which no other event loop can run in the meantime."""
    with chromium() as browser:
        yield browser
