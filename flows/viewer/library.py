"""Library of the runs that are shown: one, or all of an archive."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from flows.viewer.shown_run import ShownRun
from tiling.archives.archive import CARD_NAME, Archive
from tiling.archives.flags import flags_by_slide
from tiling.archives.slide_record import SlideRecord
from tiling.errors import RunError
from tiling.escaping import is_utf8, plain
from tiling.storage.jsonl import Segments
from tiling.storage.place import Place

RUNS_OPEN = 16
DEEPEST = 8
"""How many folders deep runs are looked for."""


class Library:
    """The runs below a place, by name. Safe to use from several threads.

    Args:
        place: a run folder, or a folder with run folders in it, at any depth down to `DEEPEST`.

    Raises:
        RunError: there is neither a run nor an archive.
    """

    def __init__(self, place: Place) -> None:
        self.place = place.resolve()
        self.is_archive = not _is_run(self.place)
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}
        self._opened: OrderedDict[str, ShownRun] = OrderedDict()
        self._records: tuple[int, list[SlideRecord]] | None = None
        if not place.is_dir() or (not self.names() and not self.slides_without_run()):
            raise RunError(
                f"{place} holds no run (no run.json) and no runs: there is nothing to look at; give a folder that "
                f"--out named, or the folder in which such folders lie"
            )

    def names(self) -> list[str]:
        """The names of all runs that are there now, the archive's in alphabetical order."""
        found = {self.place.name or str(self.place): self.place}
        if self.is_archive:
            found = dict(sorted(_runs_below(self.place)))
        with self._lock:
            self._places = found
        return [*found]

    def slides_without_run(self) -> list[SlideRecord]:
        """Slides of an archive without a run, by name: those that can't be opened, for example.

        Raises:
            RunError: the archive's card or its ledger is damaged.
        """
        records, places = self._slide_records(), self._places
        left = [record for record in records if not record.is_settled and record.folder not in places]
        return sorted(left, key=lambda record: record.slide)

    def flags(self) -> dict[str, tuple[str, ...]]:
        """Reasons to look at runs of an archive, by their names; the others are left out.

        Raises:
            RunError: the archive's card or its ledger is damaged.
        """
        records = self._slide_records()
        folders = {record.slide: record.folder for record in records}
        return {folders[slide]: flags for slide, flags in flags_by_slide(records).items()}

    def failures(self) -> dict[str, SlideRecord]:
        """Slides of an archive that stand failed, by their names.

        Raises:
            RunError: the archive's card or its ledger is damaged.
        """
        return {record.slide: record for record in self._slide_records() if record.is_bad}

    def _slide_records(self) -> list[SlideRecord]:
        """Records of an archive's slides, read again when its ledger has grown; none of a folder of runs."""
        if not self.is_archive or not (self.place / CARD_NAME).is_file():
            return []
        revision = Segments(self.place / "ledger", 0.0).newest_number()
        with self._lock:
            if self._records is None or self._records[0] != revision:
                self._records = revision, [*Archive.open(self.place).ledger]
            return self._records[1]

    def run(self, name: str) -> ShownRun:
        """The run of that name, opened.

        Raises:
            RunError: there is no such run, or its card is damaged.
        """
        if name not in self._places and name not in self.names():
            raise RunError(f"there is no run called {name!r} in {self.place}; look at the list again")
        with self._lock:
            if name not in self._opened:
                self._opened[name] = ShownRun(self._places[name], name)
            self._opened.move_to_end(name)
            while len(self._opened) > RUNS_OPEN:
                self._opened.popitem(last=False)[1].close()
            return self._opened[name]


def _is_run(place: Place) -> bool:
    return (place / "run.json").is_file()


def _runs_below(
    place: Place, prefix: str = "", depth: int = 0, known: set[Place] | None = None
) -> Iterator[tuple[str, Place]]:
    """Every run below, by its name from the archive on; nothing is looked for inside a run.

    A folder that several links lead to is looked at once: links that lead back would have no end.
    """
    known = {place} if known is None else known
    for entry in _folders(place):
        name = f"{prefix}{entry.name if is_utf8(entry.name) else plain(entry.name)}"  # as an address can hold it
        if _is_closed(entry):
            continue
        if _is_run(entry):
            yield name, entry
        elif depth < DEEPEST and (real := entry.resolve()) not in known:
            known.add(real)
            yield from _runs_below(entry, f"{name}/", depth + 1, known)


def _is_closed(entry: Place) -> bool:
    """True if this user may not look into a folder: what is in it isn't his to see, such as a disk's lost+found."""
    return isinstance(entry, Path) and not os.access(entry, os.R_OK | os.X_OK)


def _folders(place: Place) -> list[Place]:
    """Folders directly below that may be runs, links last; in an object store every name may be one."""
    if not isinstance(place, Path):
        return [*place.iterdir()]
    found = [entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return [*sorted(found, key=_links_last)]


def _links_last(entry: Path) -> tuple[bool, str]:
    return entry.is_symlink(), entry.name
