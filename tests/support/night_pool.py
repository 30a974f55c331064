"""Stand-ins for nights: the smallest model, and a pool whose actors fail on command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_actors import FaultyActor
from tiny import save_tiny

from flows.pool.pool import Pool


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def pool(faults: Path) -> Iterator[Pool]:
    """One pool for all tests of this file, as one pool lives through a night."""
    with Pool(2, actor=FaultyActor) as pool:
        yield pool
