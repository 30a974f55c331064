"""Layout of the report in a browser: no table is cut at its edge, and no name is broken letter by letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from finished import blobs, finished_run, numbered
from playwright.sync_api import Browser

from flows.reporting import report
from flows.reporting.report import render_report
from tiling.export.export_run import export_run
from tiling.objects.spec import ObjectSpec
from unet_core.bundles.card import read_card

CUT = "[...document.querySelectorAll('.scroll')].filter(part => part.scrollWidth > part.clientWidth).length"
BROKEN = """[...document.querySelectorAll('td.name')].filter(name => {
    const text = document.createRange();
    text.selectNodeContents(name.lastChild);
    return text.getClientRects().length > name.innerText.trim().split(/\\s+/).length;
}).length"""


def test_tables_are_whole_and_names_are_on_a_line(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((300, 280, 3), np.uint8)
    facts: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "slide.tif", pixels, photometric="rgb", **facts)
    run = finished_run(tmp_path / "slide.tif", tmp_path / "run", blobs((300, 280)))
    numbered(run, ObjectSpec(least_px={1: 30}))
    with run.open_source() as source:
        export_run(run, source, "table")
    monkeypatch.setattr(report, "_model_card", lambda run: read_card("nuclei"))
    text = render_report(run)
    assert "specks" in text
    assert "held back" in text
    media: tuple[tuple[int, Literal["screen", "print"]], ...] = ((1300, "screen"), (900, "screen"), (680, "print"))
    for width, medium in media:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.emulate_media(media=medium)
        page.set_content(text)
        assert page.evaluate(CUT) == 0, (width, medium)
        assert page.evaluate(BROKEN) == 0, (width, medium)
        page.close()
