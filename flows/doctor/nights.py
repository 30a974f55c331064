"""Checks of an archive's nights: whether one died, whether one is overdue, and what the last one left."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flows.doctor.checks import Check
from tiling.archives.archive import Archive
from tiling.archives.history import NightHistory, shown_time
from tiling.errors import TilingError
from tiling.storage.place import Place, is_locked, pasted

DAY_SECONDS = 86400.0
"""How often nights are due where the archive's own options don't say."""


def check_nights(place: Place, now: float | None = None) -> Iterator[Check]:
    """Look at the ledger alone: nothing is locked, and a night that is under way is left in peace."""
    try:
        archive = Archive.open(place)
    except TilingError as error:
        yield Check.missing("archive", str(error), "overtile archive makes one, in the folder that its --out names")
        return
    history, status = NightHistory.of(archive.ledger.events), f"overtile status {pasted(archive.path)}"
    if history.last is None:
        remedy = f"begin one: overtile archive SOURCE --out {pasted(archive.path)}"
        yield Check.missing("nights", f"{archive.path} has seen no night", remedy)
        return
    yield _last(archive, history, status)
    yield _due(archive, history, time.time() if now is None else now)


def _last(archive: Archive, history: NightHistory, status: str) -> Check:
    open_ones = history.recent_deaths
    if open_ones and not open_ones[-1].died_of and is_locked(archive.path):
        return Check.ok("last night", f"under way since {shown_time(open_ones[-1].began)}")
    if open_ones:
        remedy = f"see {status} and the log; the next night resumes"
        return Check.missing("last night", "; ".join(night.death for night in open_ones), remedy)
    assert history.last is not None
    message = f"{shown_time(history.last.began)}: {history.last.summary}"
    if (history.last.facts or {}).get("verdict") in {"new failures", "failed again"}:
        return Check.warning("last night", message, f"see {status}")
    return Check.ok("last night", message)


def _due(archive: Archive, history: NightHistory, now: float) -> Check:
    every = history.every or DAY_SECONDS
    missed = history.missed(now, every)
    if missed:
        remedy = "see whether its timer, batch job or overtile serve still runs, and whether its source is mounted"
        return Check.missing("nights due", missed, remedy)
    begun = [night for night in history.nights if not night.is_rerun] or list(history.nights)
    return Check.ok("nights due", f"the last one began {shown_time(begun[-1].began)}, one every {every / 3600:.0f} h")
