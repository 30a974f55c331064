"""Phases of a slide in a night, and which of them follow each other."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Phase of a slide's job: each step asks for one phase and leaves it in another."""

    NEW = "to be planned"
    WAITING = "waits for a slide of the same content"
    PLANNED = "has tiles to compute, or a mask to close"
    CLOSED = "its outcome is recorded"

    def followed_by(self, later: Phase) -> Phase:
        """The later phase, where it may follow this one.

        Raises:
            ValueError: it may not; the program is wrong, and no slide.
        """
        if later not in _FOLLOWING[self]:
            raise ValueError(f"a slide that {self.value} can't become one that {later.value}")
        return later


_FOLLOWING = {
    Phase.NEW: {Phase.WAITING, Phase.PLANNED, Phase.CLOSED},
    Phase.WAITING: {Phase.CLOSED},  # else it is planned anew, by a job of its own
    Phase.PLANNED: {Phase.CLOSED},
    Phase.CLOSED: set[Phase](),
}
