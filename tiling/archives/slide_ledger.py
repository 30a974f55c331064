"""Ledger of an archive: a record per slide in append-only segments, folded when a night begins."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tiling.archives.slide_record import BAD, SlideRecord, SlideState
from tiling.errors import RunError
from tiling.storage.jsonl import NOT_A_RECORD, Segments
from tiling.storage.place import Place

FLUSH_SECONDS = 1.0
SEGMENTS_KEPT = 256

_KEEP_ACKNOWLEDGED = (*BAD, SlideState.BEGUN)
"""States in which a failure that somebody acknowledged stays acknowledged; a night tries the slide all the same."""


class SlideLedger:
    """Every slide's last record, and the events of all nights. Safe to use from several threads.

    `appended` counts the records of this driver by their states.
    """

    def __init__(self, folder: Place) -> None:
        self._segments = Segments(folder, FLUSH_SECONDS)
        self._records: dict[str, SlideRecord] = {}
        self._by_content: dict[tuple[str, str], str] = {}
        self._folders: dict[str, str] = {}
        self._above: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.appended: Counter[SlideState] = Counter()
        self._untaken: list[SlideRecord] = []
        self._lock = threading.Lock()
        for path, line in self._segments.lines():
            try:
                entry = json.loads(line)
                if "event" in entry:
                    self.events.append(_expected_event(entry))
                else:
                    self._fold(SlideRecord.of_entry(entry))
            except NOT_A_RECORD as error:
                raise RunError(
                    f"ledger segment {path} holds a line that is no record ({error}): which slides are done can't be "
                    f"known; restore the segment, or delete it to look at its slides again"
                ) from error

    def __iter__(self) -> Iterator[SlideRecord]:
        with self._lock:
            return iter(list(self._records.values()))

    def get(self, slide: str) -> SlideRecord | None:
        return self._records.get(slide)

    def claim(self, folder: str, slide: str) -> bool:
        """Take a run folder for a slide; False where it is another's, or would lie in or above another's.

        Upper and lower case are one, as on some file systems.
        """
        parts = folder.casefold().split("/")
        ways = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        with self._lock:
            owners = {self._folders.get(way, slide) for way in ways} | {self._above.get(ways[-1], slide)}
            if owners != {slide}:
                return False
            self._folders[ways[-1]] = slide
            self._above |= dict.fromkeys(ways[1:-1], slide)
            return True

    def done_with(self, fingerprint: str, asked: Mapping[str, str]) -> SlideRecord | None:
        """A slide of that content, with the same asked for it, that has its mask."""
        with self._lock:
            name = self._by_content.get((fingerprint, _key(asked)))
            return self._records.get(name) if name is not None else None

    def vouches_for(self, record: SlideRecord) -> bool:
        """True if the slide whose folder a record names is done, with that record's content and wishes."""
        owner = self._records.get(self._folders.get(record.folder.casefold(), ""))
        if owner is None or owner.state is not SlideState.DONE:
            return False
        return owner.fingerprint == record.fingerprint and dict(owner.asked) == dict(record.asked)

    def refers_to(self, folder: str) -> bool:
        """True if some slide's mask lies in a folder."""
        with self._lock:
            return any(record.folder == folder for record in self._records.values())

    def withdraw(self, slide: str) -> None:
        """Store that a slide's run makes room for another: until that is done, none is where its record said."""
        with self._lock:
            before = self._records.get(slide)
            if before is not None and before.state is SlideState.DONE:
                self._store(replace(before, state=SlideState.BEGUN, reason="its former run makes room"))
                self._segments.flush()

    def begin(self, record: SlideRecord) -> None:
        """Store at once that a slide is under way: after a kill, that is its outcome."""
        with self._lock:
            self._store(record)
            self._segments.flush()

    def mark_gone(self, slide: str, night: str) -> None:
        """Store that the source no longer holds a slide that isn't done. Should it come back, it is looked at anew."""
        with self._lock:
            before = self._records[slide]
            why = f": {before.reason}" if before.state is SlideState.FAILED else ""
            reason = f"no longer in the source; it was {before.state.value}{why}"
            gone = replace(before, state=SlideState.GONE, reason=reason, lasting=False, night=night)
            self._store(
                replace(gone, acknowledged=False, failed_before=False, failed_since="")
            )  # should it come back, that is news

    def mark_missing(self, slide: str, since: str) -> None:
        """Store since which night the source lacks the image of a mask; an empty night says that it is back."""
        with self._lock:
            self._store(replace(self._records[slide], missing_since=since))

    def refuse(self, record: SlideRecord) -> None:
        """Store that a slide isn't opened, where that is news: it is the same every night."""
        with self._lock:
            before = self._records.get(record.slide)
            if before is None or (before.state, before.reason) != (record.state, record.reason):
                self._store(record)

    def acknowledge(self, slide: str) -> SlideRecord:
        """Store that somebody has seen why a slide failed and leaves it so; a changed file is looked at anew.

        Raises:
            RunError: there is no such slide, or it doesn't stand failed.
        """
        with self._lock:
            before = self._records.get(slide)
            if before is None or not before.is_bad:
                state = "is not known here" if before is None else f"is {before.state.value}"
                failed = sorted(record.slide for record in self._records.values() if record.is_bad)
                shown = f"; failed are {', '.join(failed[:5])}" if failed else "; no slide stands failed"
                raise RunError(f"a failure is acknowledged by the slide's name, and {slide!r} {state}{shown}")
            self._store(replace(before, acknowledged=True))
            self._segments.flush()
            return before

    def relocate(self, folder: str, fingerprint: str, to: str) -> None:
        """Store where the mask of a content lies by now, for all slides of that content that shared it."""
        with self._lock:
            for record in [*self._records.values()]:
                if record.state is SlideState.SAME and (record.folder, record.fingerprint) == (folder, fingerprint):
                    self._store(replace(record, folder=to))
            self._segments.flush()

    def append(self, record: SlideRecord) -> None:
        with self._lock:
            self._store(record)
            self.appended[record.state] += 1
            self._untaken.append(record)

    def take_appended(self) -> list[SlideRecord]:
        """The records that were appended since this was last asked, in order."""
        with self._lock:
            taken, self._untaken = self._untaken, []
            return taken

    def announce(self, name: str, facts: Mapping[str, Any]) -> None:
        """Add an event and store it at once."""
        entry = {"event": name, "time": time.time(), "facts": dict(facts)}
        with self._lock:
            self.events.append(entry)
            self._segments.append(_dump(entry))
            self._segments.flush()

    def flush(self) -> None:
        with self._lock:
            self._segments.flush()

    def unknown_files(self) -> list[Place]:
        """Unknown files among the segments."""
        return self._segments.unknown_files()

    def compact(self) -> None:
        """Put what thousands of segments say into one, so that a later night reads one; only for the one writer."""
        old = self._segments.stored()
        if len(old) <= SEGMENTS_KEPT:
            return
        with self._lock:
            for entry in self.events:
                self._segments.keep(_dump(entry))
            for record in self._records.values():
                self._segments.keep(_dump(record.entry()))
            # The new segment says all that the old ones do: whichever of them are left after a kill change nothing.
            self._segments.flush()
        for segment in old:
            segment.unlink(missing_ok=True)

    def _store(self, record: SlideRecord) -> None:
        before = self._records.get(record.slide)
        if before is not None and before.is_of(record.size_bytes, record.version, record.asked):
            if before.acknowledged and record.state in _KEEP_ACKNOWLEDGED:
                record = replace(record, acknowledged=True)
            if before.stands_failed and record.state is SlideState.BEGUN:
                record = replace(record, failed_before=True)
            if before.stands_failed and record.stands_failed:
                record = replace(record, failed_since=before.failed_since or before.night)
        record = replace(record, time=time.time())
        self._fold(record)
        self._segments.append(_dump(record.entry()))

    def _fold(self, record: SlideRecord) -> None:
        before = self._records.get(record.slide)
        if before is not None and before.fingerprint is not None:
            key = before.fingerprint, _key(before.asked)
            if self._by_content.get(key) == record.slide:
                del self._by_content[key]
        self._records[record.slide] = record
        if record.folder and record.state is not SlideState.SAME:
            parts = record.folder.casefold().split("/")
            self._folders["/".join(parts)] = record.slide
            self._above |= {"/".join(parts[:end]): record.slide for end in range(2, len(parts))}
        if record.is_settled and record.fingerprint is not None:
            key = record.fingerprint, _key(record.asked)
            # A mask that was shared outlives the slide that it was made for, once that has another content.
            if record.state is SlideState.DONE or key not in self._by_content:
                self._by_content[key] = record.slide


def _expected_event(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of an event, if it is one."""
    kinds = {"event": str, "time": (int, float), "facts": dict}
    if not all(isinstance(entry[name], kind) for name, kind in kinds.items()):
        raise TypeError("an event without name, time or facts")
    return entry


def _key(asked: Mapping[str, str]) -> str:
    return json.dumps(dict(asked), sort_keys=True)


def _dump(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"))
