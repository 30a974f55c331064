"""Takes the documentation's pictures of real runs with real failures: `make pictures WORK=/data`.

A slide is copied with three of its segments destroyed, as a bad disk leaves them; it and two sound images go through
the command line. Then Chromium looks at the page, the archive, the report and a notebook's cell: light and dark, on a
phone and in print. All pictures go to WORK/pictures; with `--docs` those of the documentation are replaced too.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tifffile
from cli import OVERTILE
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from shown import Shown, shown

from overtile import open_run
from tiling.geometry import Box, Halo
from tiling.plan import TilePlan

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SLIDE = DATA / "slides" / "CMU-1-Small-Region.svs"
CORE_PX = 512
DESK, PHONE = (1200, 760), (390, 844)
PAPER = (688, 1002)  # what the report's margins leave of A4

Scheme = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: a place of the viewer, on a screen of that size, after some clicks; `whole` also below the fold.

    `part` takes one element of it alone.
    """

    name: str
    place: str
    screen: tuple[int, int] = DESK
    scheme: Scheme = "light"
    act: Callable[[Page], None] = lambda page: None
    whole: bool = False
    in_print: bool = False
    part: str = ""

    def take(self, browser: Browser, viewer: Shown, folder: Path) -> None:
        width, height = self.screen
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=self.scheme, base_url=viewer.address
        )
        page = context.new_page()
        page.goto(viewer.link)
        if self.in_print:
            page.emulate_media(media="print", color_scheme=self.scheme)
        page.goto(self.place)
        page.wait_for_load_state("networkidle")
        self.act(page)
        settle(page)
        if self.part:
            page.locator(self.part).screenshot(path=folder / f"{self.name}.png")
        else:
            page.screenshot(path=folder / f"{self.name}.png", full_page=self.whole)
        if self.in_print:
            page.pdf(path=folder / f"{self.name}.pdf", format="A4", print_background=False)
        context.close()


def choose_failed(page: Page) -> None:
    """The first failed tile, as a person gets there by key."""
    page.locator("#viewer").focus()
    page.keyboard.press("n")
    settle(page)


def show_keys(page: Page) -> None:
    page.keyboard.press("?")


def safe_outlines(page: Page) -> None:
    choose_failed(page)
    page.keyboard.press("o")
    page.keyboard.press("c")


BROKEN = f"/run?run={SLIDE.stem}"
REPORT = f"/report?run={SLIDE.stem}"
SHOTS = (
    Shot("viewing-page", BROKEN, act=choose_failed),
    Shot("page-dark", BROKEN, scheme="dark", act=choose_failed),
    Shot("page-whole", BROKEN),
    Shot("page-keys", BROKEN, act=show_keys),
    Shot("page-keys-dark", BROKEN, scheme="dark", act=show_keys),
    Shot("page-safe-outlines", BROKEN, act=safe_outlines),
    Shot("page-phone", BROKEN, PHONE, act=choose_failed),
    Shot("page-phone-dark", BROKEN, PHONE, "dark"),
    Shot("page-print", BROKEN, PAPER, in_print=True),
    Shot("viewing-archive", "/", (1200, 470)),
    Shot("archive-dark", "/", (1200, 470), "dark"),
    Shot("archive-phone", "/", PHONE, whole=True),
    Shot("archive-print", "/", PAPER, in_print=True, whole=True),
    Shot("viewing-report", REPORT, (1100, 1340)),
    Shot("viewing-close-ups", REPORT, (900, 1340), part=".close-ups"),
    Shot("report-whole", REPORT, (1100, 1340), whole=True),
    Shot("report-dark", REPORT, (1100, 1340), "dark", whole=True),
    Shot("report-phone", REPORT, PHONE, whole=True),
    Shot("report-phone-dark", REPORT, PHONE, "dark", whole=True),
    Shot("report-print", REPORT, PAPER, in_print=True, whole=True),
    Shot("report-print-dark", REPORT, PAPER, "dark", in_print=True, whole=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where slides and runs lie; kept, and used again")
    parser.add_argument("--docs", action="store_true", help="also replace the documentation's pictures")
    parser.add_argument("--only", default="", help="pictures whose names hold this")
    asked = parser.parse_args()
    work = asked.work.resolve()
    make_runs(work)
    pictures = work / "pictures"
    pictures.mkdir(exist_ok=True)
    with chromium() as browser, shown(work / "runs") as viewer:
        for shot in SHOTS:
            if asked.only in shot.name:
                shot.take(browser, viewer, pictures)
        for scheme, name in (("light", "python"), ("dark", "python-dark")):
            if asked.only in name:
                take_cell(browser, work, scheme, pictures / f"{name}.png")
    if asked.docs:
        for name in ("viewing-page", "viewing-report", "viewing-close-ups", "viewing-archive", "python"):
            with Image.open(pictures / f"{name}.png") as picture:
                picture.convert("RGB").save(ROOT / "docs" / f"{name}.webp", quality=80, method=6)


def make_runs(work: Path) -> None:
    """Segment what isn't there yet."""
    slides, runs = work / "slides", work / "runs"
    slides.mkdir(parents=True, exist_ok=True)
    retina = sorted((DATA / "retina").rglob("*.jpg"))[0]
    shutil.copy(retina, slides / retina.name)
    os.chdir(work)
    broken = slides / SLIDE.name
    if not broken.exists():
        destroy(broken, lone_segments())
    segment(broken, runs / broken.stem, "--core", CORE_PX, expected=3)
    segment(slides / retina.name, runs / "retina", "--model", "vessels")
    if not is_there(runs / "colon"):
        exec(example(), {})


def example() -> str:
    """The code of docs/python.md, which makes `runs/colon`."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    return code.strip()


def segment(image: Path, run: Path, *options: object, expected: int = 0) -> None:
    if is_there(run):
        return
    ended = subprocess.run([OVERTILE, "segment", image, "--out", run, *map(str, options)], check=False)
    if ended.returncode != expected:
        raise SystemExit(f"the segmentation of {image} ended with {ended.returncode}")


def is_there(run: Path) -> bool:
    """A report is what a run ends with."""
    return (run / "report.html").exists()


def lone_segments() -> list[int]:
    """Three segments of the slide's finest level, in tissue, each of which one tile alone reads."""
    from unet_core.bounds import footprint
    from unet_core.bundles.bundle import load_bundle

    with tifffile.TiffFile(SLIDE) as file:
        page = file.pages.first
        extent, side = (page.imagelength, page.imagewidth), page.tilewidth
        sizes = page.databytecounts
    found = footprint(load_bundle("nuclei").module, 3)
    plan = TilePlan(extent, CORE_PX, found.stride, Halo(*found.halo.sides))
    across, chosen = -(-extent[1] // side), dict[int, int]()
    for index in sorted(range(len(sizes)), key=lambda each: -sizes[each]):  # JPEG of tissue takes more bytes
        y, x = index // across * side, index % across * side
        box = Box(y, x, min(y + side, extent[0]), min(x + side, extent[1]))
        readers = [tile.index for tile in plan.tiles() if not tile.read.intersect(box).is_empty]
        if len(readers) == 1 and len(chosen) < 3:
            chosen.setdefault(readers[0], index)
    return [*chosen.values()]


def destroy(copy: Path, segments: list[int]) -> None:
    """Copy the slide: of its three segments one holds zeros, one a foreign file's bytes, one ends in zeros."""
    shutil.copy(SLIDE, copy)
    with tifffile.TiffFile(SLIDE) as file:
        page = file.pages.first
        places = [(page.dataoffsets[index], page.databytecounts[index]) for index in segments]
    with copy.open("r+b") as file:
        for (offset, size), kind in zip(places, ("zeros", "foreign", "cut"), strict=True):
            keeps = size // 3 if kind == "cut" else 0
            file.seek(offset + keeps)
            file.write((b"PK\3\4" * size if kind == "foreign" else bytes(size))[: size - keeps])


@contextmanager
def chromium() -> Generator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        raise SystemExit("Chromium is absent: `make browser` installs it, as root on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def settle(page: Page) -> None:
    """Wait until what is on the screen stays the same."""
    seen: list[bytes] = []
    for _ in range(80):
        page.wait_for_timeout(150)
        seen.append(page.screenshot())
        if len(seen) > 3 and len(set(seen[-4:])) == 1:
            return
    raise SystemExit(f"{page.url} never came to rest")


def take_cell(browser: Browser, work: Path, scheme: str, path: Path) -> None:
    """What a notebook shows below the documented example, in the surroundings that a notebook gives it."""
    start = example().partition("\n\nresult.")[0]
    shown = open_run(work / "runs" / "colon")._repr_html_()  # pyright: ignore[reportPrivateUsage]
    ink, paper, wash = ("#1c2126", "#fff", "#f5f5f5") if scheme == "light" else ("#e6e9ec", "#111", "#212121")
    context = browser.new_context(viewport={"width": 900, "height": 400})
    page = context.new_page()
    page.set_content(
        f'<body style="margin:24px;background:{paper};color:{ink};font:14px system-ui,sans-serif">'
        f'<pre style="background:{wash};padding:12px 16px;border-radius:4px;margin:0 0 16px;font:13px/1.5 monospace">'
        f"{html.escape(start)}\n\nresult</pre>{shown}</body>"
    )
    settle(page)
    page.screenshot(path=path, full_page=True)
    context.close()


if __name__ == "__main__":
    main()
