"""Slides through one pool of workers: the next are planned and staged while those before them are inferred.

Three hands move it. The feeder plans ahead and stages, slide after slide; the caller's own thread infers and writes
ledgers; closing, which stitches and draws, goes on beside both. So workers never wait between two slides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import takewhile
from typing import Any

from flows.errors import OverError
from flows.lifecycle.stopping import Stop
from flows.nightly.context import Shift
from flows.nightly.failures import EVERYBODYS, EXPECTED
from flows.nightly.slide_job import SlideWork, tile_bytes
from flows.pool.backlog import Backlog
from flows.pool.cores import usable_threads
from flows.pool.pool import AHEAD_PER_WORKER
from flows.pool.scheduler import Ended
from flows.pool.staging_budget import lying_in
from flows.reporting.escaping import plain
from flows.reporting.metrics import Queue
from flows.worker.result import Ready, TileResult
from tiling.archives.slide import Slide
from tiling.errors import StorageError, TilingError
from tiling.runs.staging import staged_sizes
from tiling.storage.place import Place

logger = logging.getLogger(__name__)

PLANNED_AHEAD = 2
CLOSING_AT_ONCE = max(4, usable_threads())

Begin = Callable[[str, str, Callable[[], None]], "Future[Any]"]
"""Begins a step of a slide, given the step's and the slide's name, in another thread."""


class Conveyor:
    """Carries slides through a night; each slide's ledger record says what became of it."""

    def __init__(self, shift: Shift, begin: Begin) -> None:
        self._shift, self._begin = shift, begin
        self._backlog = Backlog(
            AHEAD_PER_WORKER * shift.pool.size, shift.config.staging_budget, keeps=shift.config.keep_staged
        )
        if shift.config.staging_budget is not None:
            for run, sizes in lying_in(shift.archive):
                self._backlog.recount(run, sizes)
        self._active: dict[Place, SlideWork] = {}
        self._waiting: list[tuple[Slide, str]] = []  # and for which slide, of the same content
        self._closing: deque[Future[Any]] = deque()

    @property
    def queue(self) -> Queue:
        """What waits, of the slides that are under way."""
        to_do = sum(work.left for work in [*self._active.values()])
        return Queue(to_do, self._backlog.ready, self._shift.pool.size)

    def carry(self, slides: Sequence[Slide], stop: Stop) -> Iterator[tuple[SlideWork, Ended]]:
        """Segment slides in order, tiles of the oldest first; yields each tile with the slide that it is of.

        Once `stop` is asked for, tiles in flight end, and so do slides whose tiles are all in.

        Raises:
            DiskError, StagingError, PoolError: what no slide would survive.
        """
        feeder = threading.Thread(
            target=copy_context().run, args=(self._feed, slides, stop), name="feeder", daemon=True
        )
        feeder.start()
        try:
            for ended in self._shift.pool.infer(self._backlog, stop):
                work = self._active.get(ended.run)
                if work is not None:
                    self._take(work, ended)
                    yield work, ended
        finally:
            self._backlog.close()
            feeder.join()
            self._end(stop)

    def _feed(self, slides: Sequence[Slide], stop: Stop) -> None:
        """Plan ahead, and stage slide after slide."""
        planned: deque[tuple[SlideWork, Future[Any]]] = deque()
        coming = deque(slides)
        with self._backlog:
            while (coming or planned or self._waiting) and not (stop.is_asked or self._backlog.is_closed):
                coming.extendleft(reversed(self._freed_twins(patience=0.0 if coming or planned else 1.0)))
                if coming:
                    work = SlideWork(self._shift, coming.popleft())
                    planned.append((work, self._begin("plan", work.slide.name, partial(self._step, work, work.plan))))
                if len(planned) > (PLANNED_AHEAD if coming else 0):
                    self._stage(*planned.popleft(), stop)
        for work, planning in planned:
            wait_for([planning])
            work.leave()

    def _freed_twins(self, patience: float) -> list[Slide]:
        """Slides for whose content another one was segmented, which has ended: they are planned again.

        That finds its mask; where there is none, for the other one has failed or changed, the next is segmented.
        """
        under_way = self._shift.twins.under_way({first for _, first in self._waiting}, patience)
        freed = [slide for slide, first in self._waiting if first not in under_way]
        self._waiting = [(slide, first) for slide, first in self._waiting if first in under_way]
        return freed

    def _stage(self, work: SlideWork, planning: Future[Any], stop: Stop) -> None:
        wait_for([planning])
        self._wait_for_closings()
        if work.awaits is not None:
            self._waiting.append((work.slide, work.awaits))
            return
        if not work.is_planned:
            if not work.is_over:
                self._fail(work, planning.exception() or AssertionError("planning ended without a plan"))
            work.leave()
            return
        self._active[work.run.path] = work
        if work.todo:
            hand_over = partial(self._step, work, partial(self._hand_over, work, stop))
            wait_for([self._begin("stage", work.slide.name, hand_over)])
        else:
            self._close(work)

    def _hand_over(self, work: SlideWork, stop: Stop) -> None:
        """Give a slide's tiles to inference, as far as there is room; a slide that fails meanwhile gives no more."""
        work.begin()
        run, todo = work.run, takewhile(lambda _: not (work.is_over or stop.is_asked), work.todo)
        if self._shift.config.staging:
            run.create_staged(keep=self._shift.config.keep_staged)
            self._shift.pool.stage(run.path, todo, self._backlog, tile_bytes(run))
            return
        for index in todo:
            if not self._backlog.reserve(1):
                return
            self._backlog.offer(Ready(run.path, TileResult(index, None, 0)))

    def _take(self, work: SlideWork, ended: Ended) -> None:
        """What became of a tile, into its slide's ledger."""
        if ended.error is not None:
            if isinstance(ended.error, EVERYBODYS):
                raise ended.error
            self._fail(work, ended.error)
            return
        try:
            if work.note(ended) and not work.is_over:
                self._close(work)
        except TilingError as error:
            if isinstance(error, EVERYBODYS):
                raise
            self._fail(work, error)

    def _wait_for_closings(self) -> None:
        """Where stitching is slower than inference, slides whose tiles are all in would heap up."""
        while len(open_ones := [each for each in self._closing if not each.done()]) >= CLOSING_AT_ONCE:
            wait_for(open_ones, return_when=FIRST_COMPLETED)

    def _close(self, work: SlideWork) -> None:
        self._active.pop(work.run.path, None)
        while self._closing and self._closing[0].done():
            self._closing.popleft()
        self._closing.append(self._begin("close", work.slide.name, partial(self._step, work, work.close, last=True)))

    def _step(self, work: SlideWork, step: Callable[[], None], *, last: bool = False) -> None:
        """A step of one slide; whatever it raises ends this slide, and only what no slide would survive the night."""
        try:
            step()
        except BaseException as error:
            self._fail(work, error)
            raise
        finally:
            if last:
                work.leave()
                self._recount(work)

    def _fail(self, work: SlideWork, error: BaseException) -> None:
        if isinstance(error, OverError):
            return  # the next night begins the slide
        if isinstance(error, EVERYBODYS):
            self._backlog.close(error)
            return
        if not isinstance(error, EXPECTED):
            logger.warning("slide %s failed as no slide should", plain(work.slide.name), exc_info=error)
        is_news = not work.is_over
        work.fail(error)
        if is_news:
            self._recount(work)

    def _recount(self, work: SlideWork) -> None:
        """What lies there of a slide that is over: its last batches may have been staged or not."""
        if work.todo and self._shift.config.staging_budget is not None:
            with suppress(StorageError):  # what was counted so far is the most that can lie there
                self._backlog.recount(work.run.path, staged_sizes(work.run.staged_path))

    def _end(self, stop: Stop) -> None:
        """Let closings end, all of them or as many as the grace lasts for, and leave the rest to the next night."""
        patience = max(0.0, stop.deadline - time.monotonic()) if stop.by is not None else None
        wait_for(self._closing, patience)
        for work in self._active.values():
            work.leave()
        self._shift.archive.ledger.flush()
