"""Hook of the documentation's site: pages from outside docs/ and of notebooks, and links as they work in a checkout.

A link to a page stays a link, and one to a notebook of the gallery becomes one to its page; one to another file of the
repository becomes its path, since the site has no copy of it; one to a file that isn't there is a warning, which
`strict` makes an error.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from gallery_pages import page_of
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie beside docs/, and those of the gallery with their pictures."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for notebook in sorted((DOCS / "gallery").glob("*.ipynb")):
        page = page_of(notebook)
        files.append(File.generated(config, f"gallery/{notebook.stem}.md", content=page.markdown))
        for name, picture in page.pictures.items():
            files.append(File.generated(config, f"gallery/{name}", content=picture))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of the page as they are in the site."""
    name = page.file.src_uri
    source = ROOT / PAGES[name] if name in PAGES else DOCS / name
    lines, is_code = [], False
    for line in markdown.split("\n"):
        is_code ^= line.lstrip().startswith("```")
        lines.append(line if is_code else _of_site(line, source, name))
    return "\n".join(lines)


def _of_site(line: str, source: Path, name: str) -> str:
    line = _IMAGE.sub(lambda found: f"![{found[1]}]({_target(found[2], source, name) or found[2]})", line)

    def linked(found: re.Match[str]) -> str:
        target = _target(found[2], source, name)
        return f"[{found[1]}]({target})" if target is not None else found[1]

    return _LINK.sub(linked, line)


def _target(link: str, source: Path, name: str) -> str | None:
    """A link's target in the site, None for a file that the site has no copy of."""
    path, hash_, anchor = link.partition("#")
    if not path or "://" in path:
        return link
    file = Path(os.path.normpath(source.parent / path))
    if not file.exists():
        _log.warning("%s links to %s, which isn't there", name, link)
        return None
    of_page = {ROOT / where: page for page, where in PAGES.items()}.get(file)
    if of_page is None and file.is_relative_to(DOCS) and file.is_file():
        of_page = file.relative_to(DOCS).as_posix()
    if of_page is None:
        return None
    if file.parent == DOCS / "gallery" and file.suffix == ".ipynb":
        of_page = of_page.removesuffix(".ipynb") + ".md"
    return f"{os.path.relpath(of_page, Path(name).parent)}{hash_}{anchor}"
