"""Acknowledgement of failures: somebody has seen why slides failed and leaves them so."""

from __future__ import annotations

from collections.abc import Sequence

from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideRecord
from tiling.storage.place import Place, lock_run


def acknowledge(place: Place, slides: Sequence[str]) -> list[SlideRecord]:
    """Store it for slides that stand failed; their records as they were.

    Raises:
        RunError: a slide doesn't stand failed, or a night works on the archive.
    """
    Archive.open(place)  # before a lock is left in what is no archive
    with lock_run(place):
        ledger = Archive.open(place).ledger
        return [ledger.acknowledge(slide) for slide in slides]
