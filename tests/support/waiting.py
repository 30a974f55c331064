"""Waits for tiles that another process computes."""

from __future__ import annotations

import time
from pathlib import Path

from tiling.runs.run import Run

MOST_SECONDS = 250


def wait_for_tiles(folder: Path, count: int) -> int:
    """Wait until the ledgers of a run, or of all runs of an archive, record so many tiles; returns how many."""
    deadline = time.monotonic() + MOST_SECONDS
    known = 0
    while time.monotonic() < deadline:
        cards = [*folder.glob("run.json"), *folder.glob("slides/*/run.json")]
        known = sum(len([*Run.open(card.parent).ledger.records()]) for card in cards)
        if known >= count:
            return known
        time.sleep(0.02)
    raise AssertionError(f"{folder} never came to {count} tiles, but to {known}")
