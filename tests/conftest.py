"""Fixtures that every test file shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# Speed is a benchmark, never a timed test: a loaded machine must not fail one.
settings.register_profile("overtile", deadline=None)
settings.load_profile("overtile")

DATA_DIR = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of open imagery beside the project; tests that look at it skip where it is absent."""
    if not DATA_DIR.is_dir():
        pytest.skip("the folder of open imagery (../shared/data) is absent")
    return DATA_DIR
