"""Gallery of the documentation: its notebooks show what their cells say today, and become pages of the site."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.gallery import execute, notebooks
from docs.gallery_pages import page_of

NAMES = ("network", "night", "scene", "slide")
LARGEST_BYTES = 200_000
_PICTURE = re.compile(r"data:image/[^\"']+")
_VARYING = re.compile(r"\d{4}-\d\d-\d\d[_T ][\d:]+|\d+:\d\d(:\d\d)?|[\d.]+ (s|MPix/s)|[0-9a-f]{64}")


def cells_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def stored(name: str) -> Any:
    return json.loads(notebooks()[name].read_text())


def text(output: Any) -> str:
    """Of an output what is the same in every execution: texts without times and digests, no picture's bytes."""
    data = output.get("data", {})
    parts = [output.get("text", ""), *(data.get(kind, "") for kind in ("text/plain", "text/html"))]
    whole = "".join("".join(part) for part in parts)
    return _VARYING.sub("", _PICTURE.sub("", whole))


def pictures(cell: Any) -> int:
    return sum(kind.startswith("image/") for output in cell["outputs"] for kind in output.get("data", {}))


@pytest.mark.parametrize("name", NAMES)
def test_stored_notebooks_are_executed_whole_and_small(name: str) -> None:
    path, cells = notebooks()[name], cells_of(stored(name))
    assert path.stat().st_size <= LARGEST_BYTES
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run `make gallery`"
    shown = "".join(text(output) for cell in cells for output in cell["outputs"])
    assert not {"error"} & {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert not re.search(r"\x1b|/tmp/|/home/|/root/", shown)
    assert all(cell["metadata"].get("alt") for cell in cells if pictures(cell)), "a picture says what it shows"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_becomes_a_page_with_its_pictures(name: str) -> None:
    page, cells = page_of(notebooks()[name]), cells_of(stored(name))
    assert page.markdown.startswith("# ")
    assert page.markdown.count("```python\n") == len(cells)
    assert set(page.pictures) == set(re.findall(r'<img src="([^":]+)"', page.markdown))
    assert len(page.pictures) == sum(map(pictures, cells))


def test_the_gallery_has_these_notebooks() -> None:
    assert tuple(notebooks()) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_the_same_when_it_is_executed_anew(name: str, tmp_path: Path) -> None:
    was, now = cells_of(stored(name)), cells_of(execute(notebooks()[name], tmp_path))
    for one, other in zip(was, now, strict=True):
        assert pictures(one) == pictures(other)
        if "varies" not in one["metadata"].get("tags", []):
            # Joined, since where a stream is cut depends on the machine.
            assert "".join(map(text, one["outputs"])) == "".join(map(text, other["outputs"])), "".join(one["source"])
