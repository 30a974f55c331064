"""Scheduler of tiles over workers: retries after a worker's death, backup attempts of stragglers. Knows no Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from flows.worker.result import ReadyTile, TileResult
from tiling.storage.place import Place

DURATIONS_KEPT = 64
FEWEST_DURATIONS = 8
"""Before so many tiles came back, a call has one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what is tried.

    in_flight: calls of one worker: the tile of one computes while that of the other is read or written. Where tiles
    take far less than `call_seconds`, a call is given several, at most `call_tiles`. attempts: workers that a tile
    may be given to, one after another or side by side. tile_seconds: after which a tile's worker counts as lost. A
    tile is a straggler when nothing else is left to do and it takes `straggler_factor` times the median, and
    `straggler_seconds` at least.
    """

    in_flight: int = 2
    attempts: int = 3
    tile_seconds: float = 3600.0
    straggler_factor: float = 4.0
    straggler_seconds: float = 15.0
    call_seconds: float = 0.02
    call_tiles: int = 16


IN_FLIGHT_PER_ACTOR = Limits().in_flight


@dataclass(slots=True, eq=False)
class _Tile:
    """A tile that has been given out and isn't finished."""

    ready: ReadyTile
    attempts: int = 0
    running: list[Attempt] = field(default_factory=list["Attempt"])
    failure: TileResult | None = None
    finished: bool = False


@dataclass(slots=True, eq=False)
class Attempt:
    """One tile on one worker, since a moment on the caller's monotonic clock; `last`: it ends its call."""

    tile: _Tile
    worker: int
    since: float
    last: bool = True

    @property
    def ready(self) -> ReadyTile:
        return self.tile.ready

    @property
    def index(self) -> int:
        return self.ready.tile


@dataclass(frozen=True, slots=True)
class TileOutcome:
    """The outcome of a tile, and how many workers it took.

    error: what kept the worker from trying, such as a model that can't be loaded: its run's other tiles fare no better.
    """

    ready: ReadyTile
    result: TileResult
    attempts: int
    fatal_error: Exception | None = None

    @property
    def run(self) -> Place:
        return self.ready.run


@dataclass(slots=True, eq=False)
class _Worker:
    joined: float
    running: list[Attempt] = field(default_factory=list[Attempt])
    calls: int = 0
    busy_since: float = 0.0  # when it has a tile
    alone: bool = False  # on a tile that has cost a worker: whoever dies now is known to have died of it


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Seconds in which workers had a tile, and in which they were present between the first tile and the last.

    Both are summed over all workers, of which there may be more or fewer with time.
    """

    seconds: float = 0.0
    present_seconds: float = 0.0

    @property
    def share(self) -> float:
        """Of their time, in which they had a tile."""
        return min(1.0, self.seconds / self.present_seconds) if self.present_seconds > 0 else 0.0


class Scheduler:
    """The state of inference, of one run or of several in turn.

    Workers are the caller's numbers; time is the caller's monotonic clock.
    A tile whose worker dies is tried again, alone on its worker, so that a tile that kills is known from one that was
    merely there. Of two attempts at one tile the first success counts; both would write the same bytes.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._workers: dict[int, _Worker] = {}
        self._retries: deque[_Tile] = deque()
        self._reserved: int | None = None
        self._unfinished: dict[_Tile, None] = {}  # a set in order
        self._returned: deque[_Tile] = deque()  # that their call has not tried
        self._durations: deque[float] = deque(maxlen=DURATIONS_KEPT)
        self._work_seconds: deque[float] = deque(maxlen=DURATIONS_KEPT)
        self._busy_seconds = 0.0  # of workers that rest or are gone
        self._first, self._last = float("inf"), 0.0  # when a tile was first given out, and last came back
        self._stays: list[tuple[float, float]] = []  # of workers that are gone

    def join(self, worker: int, now: float) -> None:
        """A worker is ready."""
        self._workers[worker] = _Worker(now)

    @property
    def is_open(self) -> bool:
        """True if a tile that was given out is not finished."""
        return bool(self._unfinished)

    @property
    def has_capacity(self) -> bool:
        """True if a worker has room for a tile that was never tried."""
        return any(True for _ in self._with_room())

    def tiles_of_call(self, ready: int) -> int:
        """Number of tiles that the next call is given: as many as take a moment, of `ready` a fair share.

        One, as long as it isn't known how long they take: several that wait for each other would come back later.
        """
        if ready < 2 or len(self._work_seconds) < FEWEST_DURATIONS:
            return 1
        each = max(median(self._work_seconds), 1e-9)
        room = sum(max(0, self._limits.in_flight - worker.calls) for worker in self._workers.values())
        return max(1, min(self._limits.call_tiles, int(self._limits.call_seconds / each), -(-ready // max(1, room))))

    def start(self, ready: ReadyTile, now: float) -> Attempt:
        """Give a fresh tile to the worker that has the least to do; only where it has capacity."""
        return self.start_call([ready], now)[0]

    def start_call(self, ready: Sequence[ReadyTile], now: float) -> list[Attempt]:
        """The same with several tiles, in one call."""
        worker = self._least_loaded()
        assert worker is not None
        tiles = [_Tile(each) for each in ready]
        self._unfinished |= dict.fromkeys(tiles)
        return [self._begin(tile, worker, now, last=tile is tiles[-1]) for tile in tiles]

    def start_returned(self, now: float) -> Attempt | None:
        """Begin one of the tiles that their call gave back, by itself; None where there is none, or no capacity."""
        worker = self._least_loaded() if self._returned else None
        return None if worker is None else self._begin(self._returned.popleft(), worker, now)

    def give_back(self, attempt: Attempt, now: float) -> None:
        """A call has ended before it came to a tile, which is tried again by itself."""
        self._release(attempt, now)
        tile = attempt.tile
        tile.attempts -= 1
        if not tile.finished and not tile.running:
            self._returned.append(tile)

    def next_retry(self, now: float, *, nothing_fresh: bool) -> Attempt | None:
        """The next retry that is due: of a tile that lost its worker, or a backup attempt of a straggler."""
        if self._retries:
            if self._reserved is None or self._reserved not in self._workers:
                self._reserved = min(self._workers, key=lambda each: len(self._workers[each].running), default=None)
            reserved = self._reserved
            if reserved is None or self._workers[reserved].running:
                return None
            self._reserved = None
            self._workers[reserved].alone = True
            return self._begin(self._retries.popleft(), reserved, now)
        return self._backup_attempt(now) if nothing_fresh else None

    def end(self, attempt: Attempt, result: TileResult, now: float) -> TileOutcome | None:
        """An attempt came back; None where the tile is finished already or another attempt may still succeed."""
        self._release(attempt, now)
        tile = attempt.tile
        if tile.finished:
            return None
        if result.reason is not None and tile.running:
            tile.failure = result
            return None
        self._durations.append(now - attempt.since)
        if result.reason is None:
            self._work_seconds.append(result.work_seconds)
        return self._finish(tile, result)

    def worker_lost(self, worker: int, why: str, now: float) -> list[TileOutcome]:
        """A worker is gone; returns the tiles that have now cost too many."""
        lost = self._workers.pop(worker, _Worker(now))
        self._stays.append((lost.joined, now))
        if lost.running:
            self._rest(lost, now)
        if self._reserved == worker:
            self._reserved = None
        outcome: list[TileOutcome] = []
        for attempt in lost.running:
            tile = attempt.tile
            tile.running.remove(attempt)
            if tile.finished or tile.running:
                continue
            if tile.failure is not None:
                outcome.append(self._finish(tile, tile.failure))
            elif tile.attempts >= self._limits.attempts:
                reason = f"its worker died {tile.attempts} times: {why}"
                outcome.append(self._finish(tile, TileResult(attempt.index, None, 0, {}, reason)))
            else:
                self._retries.append(tile)
        return outcome

    def utilisation(self, now: float) -> Utilisation:
        """Utilisation of the workers up to now."""
        running = [worker.busy_since for worker in self._workers.values() if worker.running]
        last = now if running else self._last
        stays = [*self._stays, *((worker.joined, now) for worker in self._workers.values())]
        present = sum(max(0.0, min(left, last) - max(joined, self._first)) for joined, left in stays)
        return Utilisation(self._busy_seconds + sum(now - since for since in running), present)

    def overdue(self, now: float) -> list[int]:
        """Workers whose tile takes longer than any may."""
        return [
            number
            for number, worker in self._workers.items()
            if worker.running and now - worker.running[0].since > self._limits.tile_seconds
        ]

    def _begin(self, tile: _Tile, worker: int, now: float, *, last: bool = True) -> Attempt:
        attempt = Attempt(tile, worker, now, last)
        tile.attempts += 1
        tile.running.append(attempt)
        given_to = self._workers[worker]
        if not given_to.running:
            given_to.busy_since = now
        given_to.running.append(attempt)
        given_to.calls += last
        self._first = min(self._first, now)
        return attempt

    def _release(self, attempt: Attempt, now: float) -> None:
        attempt.tile.running.remove(attempt)
        worker = self._workers[attempt.worker]
        worker.running.remove(attempt)
        worker.alone = False
        if not worker.running:
            self._rest(worker, now)
        if attempt.last:
            worker.calls -= 1
            for behind in worker.running:  # waited for this one until now
                behind.since = now

    def _rest(self, worker: _Worker, now: float) -> None:
        self._busy_seconds += now - worker.busy_since
        self._last = now

    def _finish(self, tile: _Tile, result: TileResult) -> TileOutcome:
        tile.finished = True
        del self._unfinished[tile]
        seconds = {**tile.ready.result.seconds, **result.seconds}
        return TileOutcome(tile.ready, replace(result, seconds=seconds), tile.attempts)

    def _least_loaded(self) -> int | None:
        return min(self._with_room(), default=(0, None))[1]

    def _with_room(self) -> Iterator[tuple[int, int]]:
        """Numbers of calls that they have, and of workers that may be given a fresh one."""
        reserved = self._reserved if self._retries else None
        for number, worker in self._workers.items():
            if worker.calls < self._limits.in_flight and not worker.alone and number != reserved:
                yield worker.calls, number

    def _backup_attempt(self, now: float) -> Attempt | None:
        idle = next((number for number, worker in self._workers.items() if not worker.running), None)
        if idle is None or not self._durations:
            return None
        patience = max(self._limits.straggler_seconds, self._limits.straggler_factor * median(self._durations))
        late = [
            tile.running[0]
            for tile in self._unfinished
            if len(tile.running) == 1
            and tile.attempts < self._limits.attempts
            and now - tile.running[0].since > patience
        ]
        if not late:
            return None
        return self._begin(min(late, key=lambda attempt: attempt.since).tile, idle, now)
