"""Pages of the site made of executed notebooks: their text, code, and what the cells show."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PICTURES = {"image/jpeg": "jpg", "image/png": "png"}


@dataclass(frozen=True, slots=True)
class NotebookPage:
    """A page's Markdown, and its pictures by file name."""

    markdown: str
    pictures: dict[str, bytes] = field(default_factory=dict[str, bytes])


def page_of(path: Path) -> NotebookPage:
    """The page of one notebook; the notebook itself is offered below the heading."""
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    pictures: dict[str, bytes] = {}
    parts: list[str] = []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts.append(f"```python\n{source}\n```")
            parts.extend(_shown(cell, f"{path.stem}-{number}", pictures))
    heading, _, text = parts[0].partition("\n")
    link = f'<p><a href="{path.name}" download>The notebook of this page</a></p>'
    return NotebookPage("\n\n".join([heading, link, text.strip(), *parts[1:]]) + "\n", pictures)


def _shown(cell: dict[str, Any], name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """The outputs of a cell as Markdown; pictures are added to the given ones."""
    for number, output in enumerate(cell["outputs"]):
        data: dict[str, Any] = output.get("data", {})
        kind = next((each for each in _PICTURES if each in data), None)
        if kind is not None:
            file = f"{name}-{number}.{_PICTURES[kind]}"
            pictures[file] = base64.b64decode("".join(data[kind]))
            yield f'<p><img src="{file}" alt="{html.escape(cell["metadata"].get("alt", ""), quote=True)}"></p>'
        elif "text/html" in data:
            yield "<div>" + "".join(data["text/html"]).replace("\n\n", "\n").strip() + "</div>"
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            yield f"```text\n{text.rstrip()}\n```"
