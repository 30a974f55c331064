"""Ledger of a run: what happened to each tile, in append-only JSON-lines segments with one writer.

The ledger is the only truth about what is done. A segment is written whole or not at all, so a driver that
dies between two of them loses only knowledge of tiles whose shards it can compute again, identically.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.errors import RunError
from tiling.runs.no_data import ALL_DATA, NoDataCounts
from tiling.storage.jsonl import NOT_A_RECORD, Segments
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, pasted

FLUSH_SECONDS = 0.5
FLUSH_SECONDS_REMOTE = 5.0
"""Every segment in an object store costs a request to write, and one each time that the ledger is read."""
MOST_LABELS_COUNTED = 32
"""Of a mask with more, pixels are counted on the mask itself."""
PLANNED = "planned"
"""The event after which tiles without foreground are known to be skipped."""
CARD = "card"
"""Of the run's card the digest: a fact of the event `PLANNED`."""
STITCHED = "stitched"
"""The event after which the pyramid shows every tile that was written before it."""
INFERRING = "inferring"
"""The event with which a driver begins: times of tiles before and after it say nothing about each other."""
DRAWN = "drawn"
"""The event after which pictures show the mask of that digest."""
PYRAMID_DAMAGED = "pyramid damaged"
"""The event after which the pyramid as a whole has to be built again."""


class TileState(IntEnum):
    """The last known state of a tile."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    SKIPPED = 3
    DAMAGED = 4  # done once, and no longer what was written


@dataclass(frozen=True, slots=True)
class TileRecord:
    """One line of the ledger about one tile."""

    tile: int
    state: TileState
    attempts: int = 0
    digest: str | None = None  # of the valid labels, blake2b-128
    reason: str | None = None  # why it failed
    worker: str | None = None
    seconds: dict[str, float] = field(default_factory=dict[str, float])  # per stage of the tile's walk
    pixels: int = 0
    time: float = 0.0
    probabilities: str | None = None  # digest of the valid region of all classes, where the run keeps them
    empty: NoDataCounts = ALL_DATA
    counts: dict[int, int] | None = None  # of pixels by label, of a done tile; runs of earlier versions have none


_FIELDS = tuple(each.name for each in fields(TileRecord))
NO_DATA_FIELDS = len(fields(NoDataCounts))


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger about the whole run: planned, stitched, exported."""

    name: str
    time: float
    facts: dict[str, Any]


@dataclass(slots=True)
class LedgerState:
    """The ledger folded: a few bytes per tile, and full records of the failed and damaged ones only."""

    states: NDArray[np.uint8]
    attempts: NDArray[np.uint8]
    unstitched: NDArray[np.bool_]  # written since the pyramid was last built
    pyramid_stands: bool = False  # it was built, and what isn't unstitched is right in it
    failed: dict[int, TileRecord] = field(default_factory=dict[int, TileRecord])
    damaged: dict[int, TileRecord] = field(default_factory=dict[int, TileRecord])
    events: list[Event] = field(default_factory=list[Event])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    pixels: int = 0
    first_time: float | None = None
    last_time: float | None = None
    elapsed: float = 0.0  # seconds between tiles, without the pauses between one driver and the next
    latest: float | None = None  # of the current driver's tiles
    empty: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, NO_DATA_FIELDS), np.uint32))
    """`(tile, 4)`: what each tile lacks, in the order of `NoDataCounts`; of no tile where none lacks anything."""
    held: NDArray[np.uint8] | None = None
    """`(tile, 33)`: state and digests of what each tile holds, of a damaged one those before; only where asked for."""
    counts: dict[int, NDArray[np.uint32]] | None = None
    """Pixels of each done tile by label, none of tiles that record none; only where what is held is asked for, and of
    masks of few labels."""

    def add(self, entry: TileRecord | Event) -> None:
        """Add the records that were written since; the state then equals a fresh fold."""
        if isinstance(entry, Event):
            _fold_event(self, entry)
        else:
            _fold_record(self, entry)

    def count(self, state: TileState) -> int:
        return int(np.count_nonzero(self.states == state))

    def indices(self, *states: TileState) -> NDArray[np.int64]:
        return np.flatnonzero(np.isin(self.states, states))

    def empty_of(self, tile: int) -> NoDataCounts:
        """Counts of one tile's pixels without data."""
        return NoDataCounts(*(int(count) for count in self.empty[tile])) if len(self.empty) else NoDataCounts()

    def no_data_counts(self, tiles: NDArray[np.int64] | slice = slice(None)) -> NoDataCounts:
        """Counts of pixels without data over tiles."""
        if not len(self.empty):
            return NoDataCounts()
        return NoDataCounts(*(int(count) for count in self.empty[tiles].sum(axis=0, dtype=np.int64)))

    def last_event(self, name: str) -> Event | None:
        return next((event for event in reversed(self.events) if event.name == name), None)

    @property
    def is_closed(self) -> bool:
        """True if no tile is left to do or to repair, and the pyramid shows them all: what exports are made of."""
        is_open = bool(np.isin(self.states, (TileState.PENDING, TileState.DAMAGED)).any())
        return not is_open and self.pyramid_stands and not self.unstitched.any()

    @property
    def is_complete(self) -> bool:
        """True if everything that was asked for is there: closed, and no tile failed."""
        return self.is_closed and not self.failed

    @property
    def missing(self) -> str:
        """Steps that are missing before the run is complete, in words; empty where it is."""
        counts = ((TileState.PENDING, "to do"), (TileState.FAILED, "failed"), (TileState.DAMAGED, "damaged"))
        parts = [
            f"{count} {'tile' if count == 1 else 'tiles'} {name}" for s, name in counts if (count := self.count(s))
        ]
        if not self.pyramid_stands or self.unstitched.any():
            parts.append("the pyramid doesn't show all tiles yet")
        return ", ".join(parts)

    def remedy(self, run: Place) -> str:
        """Command that completes a run; empty where nothing is missing."""
        if self.is_complete:
            return ""
        if self.count(TileState.PENDING):
            return f"run the overtile segment command of {run} again"
        options = [*(["--failed"] if self.failed else []), *(["--damaged"] if not self.is_closed else [])]
        return f"overtile rerun {pasted(run)} {' '.join(options)}"


class Ledger:
    """The ledger of one run folder, or of a run in an object store.

    Args:
        folder: holds the segments.
        tiles: number of tiles of the run's plan.
    """

    def __init__(self, folder: Place, tiles: int) -> None:
        self._tiles = tiles
        self._segments = Segments(folder, FLUSH_SECONDS_REMOTE if isinstance(folder, ObjectPath) else FLUSH_SECONDS)
        self._clock = SteadyClock()

    def now(self) -> float:
        """The time of day for a record: one ledger's times never go backwards."""
        return self._clock.now()

    def append(self, record: TileRecord) -> None:
        """Add a record; it is stored after at most `FLUSH_SECONDS` of further appends, or after `flush`."""
        entry: dict[str, Any] = {name: getattr(record, name) for name in _FIELDS}
        entry["state"] = record.state.name.lower()
        if record.empty is ALL_DATA or record.empty == ALL_DATA:
            del entry["empty"]  # as of most tiles
        else:
            entry["empty"] = asdict(record.empty)
        if record.counts is None:
            del entry["counts"]
        self._segments.append(_dump(entry))

    def announce(self, name: str, facts: dict[str, Any], *, soon: bool = False) -> Event:
        """Add an event and write it at once; returns it as a fold reads it.

        `soon` writes it as the lines of tiles are: with others, where the last ones were written a moment ago. Of a
        small image that ends within moments, each segment by itself costs the disk more than its event is worth.
        """
        line = _dump({"event": name, "time": self.now(), "facts": facts})
        self._segments.append(line)
        if not soon:
            self.flush()
        return _parse_event(json.loads(line))

    def revision(self) -> int:
        """A number that grows with every segment: what was folded at the same one is still true."""
        return self._segments.newest_number()

    def gaps(self) -> list[int]:
        """Numbers of segments that are gone from among the others."""
        numbers = {int(path.stem) for path in self._segments.stored()}
        return sorted(set(range(1, max(numbers, default=0))) - numbers)

    def flush(self) -> None:
        self._segments.flush()

    def unknown_files(self) -> list[Place]:
        """Unknown files among the segments."""
        return self._segments.unknown_files()

    def fold(self, *, held: bool = False) -> LedgerState:
        """Read every segment in order; the last line about a tile wins. With `held`, digests are kept as well.

        Raises:
            RunError: a segment that is no JSON, or names a tile outside the plan.
        """
        empty = np.zeros(self._tiles, np.uint8)
        state = LedgerState(empty, empty.copy(), empty.astype(np.bool_))
        state.held = np.zeros((self._tiles, 33), np.uint8) if held else None
        state.counts = {} if held else None
        for path, line in self._segments.lines():
            try:
                entry = json.loads(line.decode())
                state.add(_parse_event(entry) if "event" in entry else _parse_record(entry))
            except NOT_A_RECORD as error:
                raise RunError(
                    f"ledger segment {path} holds a line that is no record ({error}): what is done can't be known; "
                    f"restore the segment, or delete it to compute its tiles again"
                ) from error
        return state

    def records(self) -> Iterator[TileRecord]:
        """Every record in the order of writing."""
        for _, line in self._segments.lines():
            entry = json.loads(line)
            if "event" not in entry:
                yield _parse_record(entry)


def _fold_event(state: LedgerState, event: Event) -> None:
    state.events.append(event)
    if event.name == STITCHED:
        state.unstitched[:] = False
    elif event.name == INFERRING:
        state.latest = None
    state.pyramid_stands = event.name == STITCHED or (state.pyramid_stands and event.name != PYRAMID_DAMAGED)


def _fold_record(state: LedgerState, record: TileRecord) -> None:
    if record.tile < 0:  # numpy would take it for one from the end
        raise ValueError(f"tile {record.tile} is none of the plan's {len(state.states)}")
    state.states[record.tile] = record.state
    state.attempts[record.tile] = min(255, record.attempts)
    state.unstitched[record.tile] = True
    if record.empty != ALL_DATA and not len(state.empty):
        state.empty = np.zeros((len(state.states), NO_DATA_FIELDS), np.uint32)
    if len(state.empty):
        state.empty[record.tile] = astuple(record.empty)
    for named, kind in ((state.failed, TileState.FAILED), (state.damaged, TileState.DAMAGED)):
        if record.state is kind:
            named[record.tile] = record
        else:
            named.pop(record.tile, None)
    if state.counts is not None:
        _fold_counts(state, state.counts, record)
    if state.held is not None and record.state is not TileState.DAMAGED:
        digests = (record.digest or "00" * 16) + (record.probabilities or "00" * 16)
        state.held[record.tile] = np.frombuffer(bytes([record.state]) + bytes.fromhex(digests), np.uint8)
    if record.state is TileState.DONE:
        state.pixels += record.pixels
        for stage, seconds in record.seconds.items():
            state.seconds[stage] = state.seconds.get(stage, 0.0) + seconds
        state.first_time = record.time if state.first_time is None else state.first_time
        state.last_time = record.time
        state.elapsed += max(0.0, record.time - state.latest) if state.latest is not None else 0.0
        state.latest = record.time


def _fold_counts(state: LedgerState, counts: dict[int, NDArray[np.uint32]], record: TileRecord) -> None:
    for of_label in counts.values():
        of_label[record.tile] = 0
    for label, pixels in (record.counts or {}).items():
        if label not in counts:
            if len(counts) == MOST_LABELS_COUNTED:  # memory grows with tiles and labels
                state.counts = None
                return
            counts[label] = np.zeros(len(state.states), np.uint32)
        counts[label][record.tile] = pixels


def _parse_event(entry: dict[str, Any]) -> Event:
    return Event(entry["event"], entry["time"], entry["facts"])


def _parse_record(entry: dict[str, Any]) -> TileRecord:
    given: dict[str, Any] = {**entry, "state": TileState[entry["state"].upper()]}
    if "empty" in given:
        given["empty"] = NoDataCounts(**given["empty"])
    if "counts" in given:
        given["counts"] = {int(label): int(pixels) for label, pixels in given["counts"].items()}
    return TileRecord(**given)


_encode = json.JSONEncoder(separators=(",", ":")).encode  # once: `json.dumps` makes another for every line


def _dump(entry: dict[str, Any]) -> str:
    return _encode(entry)


class SteadyClock:
    """Seconds since 1970 as the system's clock had them when this was made; from then on only time that passes counts.

    A clock that is set, or that jumps on a machine without a battery for it, would otherwise put an earlier tile after
    a later one and give negative rates.
    """

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now(self) -> float:
        """Never less than before."""
        return self._start + time.monotonic()
