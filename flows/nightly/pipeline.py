"""Pipeline of slides through one pool of workers: the next are planned and staged while earlier ones are inferred.

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

from flows.errors import NotStartedError
from flows.lifecycle.stopping import StopRequest
from flows.nightly.context import NightContext
from flows.nightly.failures import EXPECTED_ERRORS, FATAL_ERRORS
from flows.nightly.phase import Phase
from flows.nightly.slide_job import SlideJob, tile_bytes
from flows.pool.backlog import Backlog
from flows.pool.cores import usable_threads
from flows.pool.pool import AHEAD_PER_WORKER
from flows.pool.scheduler import TileOutcome
from flows.pool.staging_budget import leftover_staged_tiles
from flows.reporting.escaping import plain
from flows.reporting.metrics import Queue
from flows.worker.result import ReadyTile, TileResult
from tiling.archives.slide import Slide
from tiling.errors import StorageError, TilingError
from tiling.runs.staging import staged_sizes
from tiling.storage.place import Place

logger = logging.getLogger(__name__)

PLANNED_AHEAD = 2
CLOSING_AT_ONCE = max(4, usable_threads())

Begin = Callable[[str, Slide, Callable[[], None]], "Future[Any]"]
"""Begins a step of a slide, given the step's name and the slide, in another thread."""


class Pipeline:
    """Runs slides through a night; each slide's ledger record holds its outcome."""

    def __init__(self, context: NightContext, begin: Begin) -> None:
        self._context, self._begin = context, begin
        self._backlog = Backlog(
            AHEAD_PER_WORKER * context.pool.size, context.config.staging_budget, keeps=context.config.keep_staged
        )
        if context.config.staging_budget is not None:
            for run, sizes in leftover_staged_tiles(context.archive):
                self._backlog.recount(run, sizes)
        self._active: dict[Place, SlideJob] = {}
        self._waiting: list[tuple[Slide, str]] = []  # and for which slide, of the same content
        self._closing: deque[Future[Any]] = deque()

    @property
    def queue(self) -> Queue:
        """Tiles that wait, of the slides in progress."""
        to_do = sum(work.tiles_left for work in [*self._active.values()])
        return Queue(to_do, self._backlog.ready, self._context.pool.size)

    def run(self, slides: Sequence[Slide], stop: StopRequest) -> Iterator[tuple[SlideJob, TileOutcome]]:
        """Segment slides in order, tiles of the oldest first; yields each tile with the slide that it is of.

        Once `stop` is asked for, tiles in flight end, and so do slides whose tiles are all in.

        Raises:
            DiskError, StagingError, PoolError: what no slide would survive.
        """
        feeder = threading.Thread(
            target=copy_context().run, args=(self._producer, slides, stop), name="feeder", daemon=True
        )
        feeder.start()
        try:
            for ended in self._context.pool.infer(self._backlog, stop):
                work = self._active.get(ended.run)
                if work is not None:
                    self._record_result(work, ended)
                    yield work, ended
        finally:
            self._backlog.close()
            feeder.join()
            self._finish(stop)

    def _producer(self, slides: Sequence[Slide], stop: StopRequest) -> None:
        """Plan ahead, and stage slide after slide."""
        planned: deque[tuple[SlideJob, Future[Any]]] = deque()
        coming = deque(slides)
        with self._backlog:
            while (coming or planned or self._waiting) and not (stop.is_requested or self._backlog.is_closed):
                coming.extendleft(reversed(self._released_duplicates(patience=0.0 if coming or planned else 1.0)))
                if coming:
                    job = SlideJob(self._context, coming.popleft())
                    planned.append((job, self._begin("plan", job.slide, partial(self._step, job, job.plan))))
                if len(planned) > (PLANNED_AHEAD if coming else 0):
                    self._stage(*planned.popleft(), stop)
        for job, planning in planned:
            wait_for([planning])
            job.release()

    def _released_duplicates(self, patience: float) -> list[Slide]:
        """Slides that waited for a duplicate that has ended: they are planned again.

        That finds its mask; where there is none, for the other one has failed or changed, the next is segmented.
        """
        under_way = self._context.duplicates.in_progress({first for _, first in self._waiting}, patience)
        freed = [slide for slide, first in self._waiting if first not in under_way]
        self._waiting = [(slide, first) for slide, first in self._waiting if first in under_way]
        return freed

    def _stage(self, job: SlideJob, planning: Future[Any], stop: StopRequest) -> None:
        wait_for([planning])
        self._wait_for_closings()
        if job.phase is Phase.WAITING:
            self._waiting.append((job.slide, job.waits_for))
            return
        if job.phase is not Phase.PLANNED:
            if job.phase is not Phase.CLOSED:
                self._fail(job, planning.exception() or AssertionError("planning ended without a plan"))
            job.release()
            return
        self._active[job.run.path] = job
        if job.todo:
            hand_over = partial(self._step, job, partial(self._enqueue, job, stop))
            wait_for([self._begin("stage", job.slide, hand_over)])
        else:
            self._close(job)

    def _enqueue(self, job: SlideJob, stop: StopRequest) -> None:
        """Give a slide's tiles to inference, as far as there is room; a slide that fails meanwhile gives no more."""
        job.begin()
        run, todo = job.run, takewhile(lambda _: job.phase is not Phase.CLOSED and not stop.is_requested, job.todo)
        # The one tile of a small image is its file: it is read no faster from a copy.
        is_tiny = run.plan.count == 1 and job.slide.is_small
        if self._context.config.staging and (self._context.config.keep_staged or not is_tiny):
            run.create_staged(keep=self._context.config.keep_staged)
            self._context.pool.stage(run.path, todo, self._backlog, tile_bytes(run))
            return
        for index in todo:
            if not self._backlog.reserve(1):
                return
            self._backlog.offer(ReadyTile(run.path, TileResult(index, None, 0)))

    def _record_result(self, job: SlideJob, outcome: TileOutcome) -> None:
        """Record a tile's outcome in its slide's ledger."""
        if outcome.fatal_error is not None:
            if isinstance(outcome.fatal_error, FATAL_ERRORS):
                raise outcome.fatal_error
            self._fail(job, outcome.fatal_error)
            return
        try:
            if job.record_tile(outcome) and job.phase is not Phase.CLOSED:
                self._close(job)
        except TilingError as error:
            if isinstance(error, FATAL_ERRORS):
                raise
            self._fail(job, error)

    def _wait_for_closings(self) -> None:
        """Wait for closing slides: where stitching is slower than inference, they would pile up."""
        while len(open_ones := [each for each in self._closing if not each.done()]) >= CLOSING_AT_ONCE:
            wait_for(open_ones, return_when=FIRST_COMPLETED)

    def _close(self, job: SlideJob) -> None:
        self._active.pop(job.run.path, None)
        while self._closing and self._closing[0].done():
            self._closing.popleft()
        self._closing.append(self._begin("close", job.slide, partial(self._step, job, job.close, last=True)))

    def _step(self, job: SlideJob, step: Callable[[], None], *, last: bool = False) -> None:
        """Run a step of one slide; an error ends this slide, a fatal one the night."""
        try:
            step()
        except BaseException as error:
            self._fail(job, error)
            raise
        finally:
            if last:
                job.release()
                self._recount(job)

    def _fail(self, job: SlideJob, error: BaseException) -> None:
        if isinstance(error, NotStartedError):
            return  # the next night begins the slide
        if isinstance(error, FATAL_ERRORS):
            self._backlog.close(error)
            return
        if not isinstance(error, EXPECTED_ERRORS):
            logger.warning("slide %s failed as no slide should", plain(job.slide.name), exc_info=error)
        is_news = job.phase is not Phase.CLOSED
        job.fail(error)
        if is_news:
            self._recount(job)

    def _recount(self, job: SlideJob) -> None:
        """Count the staged tiles of a slide that has ended: its last batches may have been staged or not."""
        if job.todo and self._context.config.staging_budget is not None:
            with suppress(StorageError):  # what was counted so far is the most that can lie there
                self._backlog.recount(job.run.path, staged_sizes(job.run.staged_path))

    def _finish(self, stop: StopRequest) -> None:
        """Wait for closing slides, as long as the grace period lasts, and leave the rest to the next night."""
        patience = max(0.0, stop.deadline - time.monotonic()) if stop.by is not None else None
        wait_for(self._closing, patience)
        for work in self._active.values():
            work.release()
        self._context.archive.ledger.flush()
