"""Nights of an archive that have not ended: one that is under way, and those that died."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiling.archives.slide_record import SlideState
from tiling.storage.place import is_locked

if TYPE_CHECKING:
    from tiling.archives.archive import Archive
    from tiling.archives.history import NightHistory


@dataclass(frozen=True, slots=True)
class UnendedNights:
    """Nights since the last one that ended.

    Attributes:
        deaths: how those that died did, each in one sentence. under_way_since: when the one that is under way began,
            in seconds since 1970; None where none is.
        over, begun: slides of the last of them. waiting: those that it has not come to; None where it didn't say.
    """

    deaths: tuple[str, ...]
    under_way_since: float | None
    over: int
    begun: int
    waiting: int | None


def unended_nights(archive: Archive, history: NightHistory) -> UnendedNights | None:
    """Nights that have not ended: one that is under way, and those that died; None where the last one ended."""
    nights = history.recent_deaths
    if not nights:
        return None
    last = nights[-1]
    is_running = not last.died_of and is_locked(archive.path)
    mine = [record for record in archive.ledger if record.night == last.name]
    begun = sum(record.state is SlideState.BEGUN for record in mine)
    return UnendedNights(
        deaths=tuple(night.death for night in (nights[:-1] if is_running else nights)),
        under_way_since=last.began if is_running else None,
        over=len(mine) - begun,
        begun=begun,
        waiting=max(0, last.todo - len(mine)) if last.todo is not None else None,
    )
