"""Verdict of a night: whether anything new needs a person, and whether work is left."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The one word about a night, the gravest that holds."""

    FAILED = "new failures"
    FAILED_AGAIN = "failed again"
    BACKLOG = "backlog remains"
    LOOK = "slides to look at"
    COMPLETE = "complete"

    @classmethod
    def of(cls, *, new_failures: int, left: int, flagged: int, is_rerun: bool = False) -> Verdict:
        """Of a night with so many slides that failed for the first time, that are left, and that are to be looked at.

        What failed before, and stands as it stood, is no verdict: it has made a night red already. Of a rerun, which
        was asked for because it failed, it is one.

        >>> Verdict.of(new_failures=0, left=3, flagged=1)
        <Verdict.BACKLOG: 'backlog remains'>
        """
        if new_failures:
            return cls.FAILED_AGAIN if is_rerun else cls.FAILED
        if left:
            return cls.BACKLOG
        return cls.LOOK if flagged else cls.COMPLETE

    @property
    def is_failure(self) -> bool:
        return self in {Verdict.FAILED, Verdict.FAILED_AGAIN}
