"""The documentation as a site: every page is in it, and a link that leads nowhere is an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.commands.help import EXAMPLES, START, in_site

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)


def test_every_page_is_in_the_site_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    pages = {page.with_suffix(".html").name for page in (ROOT / "docs").glob("*.md")}
    assert pages | {"index.html", "contributing.html", "changes.html"} <= {
        page.name for page in (tmp_path / "site").iterdir()
    }
    assert "segment_image" in (tmp_path / "site" / "reference.html").read_text()
    for name in (START, *(page for _, _, page in EXAMPLES.values())):
        assert (tmp_path / "site" / in_site(name)).is_file(), "helps lead here where the wheel names the site"
    gallery = tmp_path / "site" / "gallery"
    for notebook in (ROOT / "docs" / "gallery").glob("*.ipynb"):
        assert f'href="{notebook.name}"' in gallery.joinpath(f"{notebook.stem}.html").read_text()


def test_links_that_lead_nowhere_are_errors(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    page = tmp_path / "docs" / "words.md"
    page.write_text(f"{page.read_text()}\n[gone](../gone.md) and [nothing](files.md#nothing) and ![none](none.png)\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    for what in ("words.md links to ../gone.md", "#nothing", "none.png"):
        assert what in built.stderr
