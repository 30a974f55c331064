"""Small inputs with one trait each, beside the project: a test that reads one skips where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

CASES = Path(__file__).parents[3] / "shared" / "cases"


def case(name: str) -> Path:
    """One of them, by its name."""
    path = CASES / name
    if not path.exists():
        pytest.skip(f"the small input {name} (../shared/cases) is absent")
    return path
