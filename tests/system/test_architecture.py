"""The page on the way of a run and of a tile names what exists; docstrings open with a noun or a verb."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
STEP = re.compile(r"`((?:flows|tiling|unet_core)/[\w/]+\.py)`((?:,?\s+`[A-Za-z_][\w.]*`)+)")
LINES_AT_MOST = 40
PACKAGES = ("flows", "tiling", "unet_core")
QUESTION_WORDS = {"What", "Which", "Whether", "How", "That", "Where", "When", "Who", "Why"}


def names_in(file: Path) -> set[str]:
    """What a module defines: functions and classes, and a class's methods as `Class.method`."""
    found = set[str]()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_every_step_of_the_page_is_a_function_in_a_file() -> None:
    steps = STEP.findall(PAGE.read_text())
    assert len(steps) >= 20, "each step names its file and its function"
    missing = [
        f"{file} {name}"
        for file, names in steps
        for name in re.findall(r"[\w.]+", names)
        if name not in names_in(ROOT / file)
    ]
    assert missing == []


def test_every_file_of_the_page_comes_with_a_name() -> None:
    text = PAGE.read_text()
    assert len(re.findall(r"`[\w/]+\.py`", text)) == len(STEP.findall(text))


def test_the_page_can_be_read_at_a_glance() -> None:
    assert len(PAGE.read_text().splitlines()) <= LINES_AT_MOST


def test_docstrings_open_with_a_noun_or_a_verb() -> None:
    opened = (
        (f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text.split()[0].rstrip(",:;"))
        for file in [ROOT / "overtile.py", *(each for room in PACKAGES for each in sorted((ROOT / room).rglob("*.py")))]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node))
    )
    assert [(place, word) for place, word in opened if word in QUESTION_WORDS] == []
