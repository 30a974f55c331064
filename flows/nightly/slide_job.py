"""Job of one slide in a night: planned, inferred tile by tile, closed, and recorded."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

from flows.config.run import SegmentConfig
from flows.nightly.context import NightContext
from flows.nightly.failures import is_permanent, is_unreadable, reason_of
from flows.nightly.phase import Phase
from flows.nightly.run_options import matches_options
from flows.nightly.staged_size import expect_budget
from flows.pool.scheduler import TileOutcome
from flows.reporting.progress import listener
from flows.run.changed_image import expect_same_image, settled
from flows.run.intended import RunRequest
from flows.run.pictures import drawing
from flows.run.prepare import prepare_with
from flows.run.steps import export, find_objects, folded, record_result, remaining, stitch
from tiling.archives.measures import measured
from tiling.archives.slide import Slide, file_version
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import ImageChangedError, SourceError, StorageError, TilingError
from tiling.runs.ledger import INFERRING, LedgerState
from tiling.runs.mask import Mask
from tiling.runs.reduced_levels import ReducedLevels
from tiling.runs.run import Run
from tiling.runs.unchanged_source import open_with_version
from tiling.source import ImageSource
from tiling.storage.place import lock_run, size_of_tree

logger = logging.getLogger(__name__)


class SlideJob:
    """The driver's part in one slide. Its steps run in different threads, one after another."""

    def __init__(self, context: NightContext, slide: Slide) -> None:
        self._context, self.slide = context, slide
        self._folder = context.archive.folder_of(slide.name)
        self._fingerprint: str | None = None
        self._locks = ExitStack()
        self._ending = threading.Lock()
        self._began = self._ended = 0.0
        self._tiles_left = self._unreadable_tiles = 0
        self._phase = Phase.NEW
        self._run: Run | None = None
        self._mask: Mask | None = None
        self._reduced: ReducedLevels | None = None
        self._outcome: SlideState | None = None
        self._measures: dict[str, Any] = {}
        self._stage_seconds: dict[str, float] = {}
        self.todo: Sequence[int] = ()
        self.waits_for = ""
        """The slide of the same content, of one that waits."""

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def run(self) -> Run:
        assert self._run is not None
        return self._run

    @property
    def tiles_left(self) -> int:
        """Tiles that have not ended."""
        return self._tiles_left

    def plan(self) -> None:
        """Read the slide, tell by its content whether it is new, and open or make its run.

        Where another slide of that content is being segmented, `waits_for` names it, and nothing is made.

        Raises:
            TilingError, UnetCoreError, FlowError, OSError, ValidationError: what keeps this slide from being segmented.
        """
        context, slide = self._context, self.slide
        if self._is_changing(context.config.settle):
            return
        config = context.config.of_slide(
            slide.place, context.archive.run_path(self._folder), context.bundle, slide.overrides
        )
        source, version = open_with_version(slide.place, config.image_view())
        with source:
            self._fingerprint = source.fingerprint()
            if self._is_changing(0) or self._is_duplicate(config):
                return
            self._locks.enter_context(lock_run(config.out))
            pool = context.pool
            model, available_bytes = context.model, context.available_bytes
            planned = prepare_with(
                RunRequest(model, source, version, config, pool.size, context.tune, available_bytes, pool.elsewhere)
            )
        run = planned.run
        expect_budget(run, context.config)
        self.todo = remaining(run, planned.state, planned.strip_px)
        self._reduced = ReducedLevels.of(run, planned.state) if self.todo else None
        self._tiles_left = len(self.todo)
        self._run = run
        self._enter(Phase.PLANNED)

    def begin(self) -> None:
        """Store that the slide is in progress, before its first tile is staged: after a kill this is its record."""
        self._context.archive.ledger.begin(self._record(SlideState.BEGUN, "the night was over"))

    def record_tile(self, outcome: TileOutcome) -> bool:
        """Record a tile's outcome; True when it was the last."""
        if not self._began:
            self._began = time.monotonic() - outcome.result.work_seconds
            facts = {"todo": len(self.todo), "workers": self._context.pool.size}
            self.run.ledger.announce(INFERRING, facts, soon=True)
        self._ended = time.monotonic()
        self._mask = self._mask or self.run.open_mask()
        record_result(self.run, self._mask, outcome.result, outcome.attempts, self._reduced)
        self._tiles_left -= 1
        return self._tiles_left == 0

    def close(self) -> None:
        """Stitch, draw, give the staged tiles' space back, and look whether the image still is what was read."""
        listener.set(None)  # the terminal shows the archive, not one slide's stages
        run, config = self.run, self._context.config
        if self._began:
            facts = {
                "workers": self._context.pool.size,
                "stagers": self._context.pool.stagers,
                "seconds": self._seconds,
            }
            run.ledger.announce("inferred", facts, soon=True)
        run.ledger.flush()
        expect_same_image(run, self.todo)
        state = stitch(run, folded(run), self._reduced)
        self._reduced = None
        tasks = self._context.pool.tasks.of_mask(run.plan.mask.area)
        with drawing(run, state, tasks or self._context.pool.beside) as pictures:
            find_objects(run, state, trust_code=config.trust_code, each=self._context.pool.on_blocks)
            export(run, config.export, state, tasks, pictures)
            self._measure(run, state, None if pictures is None else pictures.source)
        if not config.keep_staged:
            run.remove_staged()
        if state.failed:
            named = next(iter(state.failed.items()))
            reason = f"{len(state.failed)} tiles failed, such as {run.plan.tile(named[0]).name}: {named[1].reason}"
            self._unreadable_tiles = sum(map(is_unreadable, state.failed.values()))
            self._finish(SlideState.FAILED, reason, len(state.failed))
        elif not state.is_complete:
            self._finish(SlideState.FAILED, f"{state.missing}; the next night resumes it")
        else:
            self._finish(SlideState.DONE)
            if config.keep_earlier is not None:
                self._context.archive.forget_earlier(self._folder, config.keep_earlier)

    def _measure(self, run: Run, state: LedgerState, opened: ImageSource | None) -> None:
        """Measure image and mask for whoever judges them; a slide that can't be measured has its mask all the same.

        `opened` is the image where it is open, which for small ones means decoded.
        """
        self._stage_seconds = {stage: round(seconds, 3) for stage, seconds in state.seconds.items()}
        try:
            with run.open_source() if opened is None else nullcontext(opened) as source:
                self._measures = measured(run, source, state, self._context.model.bundle.card.pixel_size_um)
        except (TilingError, OSError) as error:
            logger.info("slide not measured", extra={"slide": str(self.slide.place), "reason": reason_of(error)})

    def fail(self, error: BaseException) -> None:
        """Record why the slide can't be segmented."""
        if isinstance(error, ImageChangedError):
            if self._run is not None:
                self._run.ledger.flush()
                error = settled(self._run, self.todo, error)
            reason = f"it changed while it was segmented; the next night segments it again ({error})"
            self._finish(SlideState.CHANGING, reason)
            return
        self._finish(SlideState.FAILED, reason_of(error), permanent=is_permanent(error))

    def release(self) -> None:
        """Release the slide for tonight; where it has begun, the next night resumes it.

        Of one that failed no tile is inferred for now: what is staged of it would take its space for nothing.
        """
        if self._reduced is not None:
            self._reduced.close()
        if self._run is not None:
            self._run.ledger.flush()
            if self._phase is not Phase.CLOSED:
                self._finish(SlideState.BEGUN, "the night was over")
            elif self._outcome is SlideState.FAILED and not self._context.config.keep_staged:
                with suppress(StorageError, OSError):  # it is counted again the next night
                    self._run.remove_staged()
        self._locks.close()

    def _enter(self, phase: Phase) -> None:
        """The one place where the slide's phase changes."""
        self._phase = self._phase.followed_by(phase)

    @property
    def _seconds(self) -> float:
        return round(self._ended - self._began, 3) if self._began else 0.0

    def _is_changing(self, settle_seconds: float) -> bool:
        """Look again: a file that is being written is left alone."""
        try:
            now = file_version(self.slide.place)
        except SourceError:  # a file of a scene went
            now = None
        if now is not None and now == self.slide.file_version and now.is_settled(settle_seconds):
            return False
        gone = "it is no longer there" if now is None else "it is still being written"
        self._finish(SlideState.CHANGING, f"{gone}; the next night looks again")
        return True

    def _is_duplicate(self, config: SegmentConfig) -> bool:
        """True if that content has a mask already, this slide's or a duplicate's, or one in progress.

        A run of another content, or of other overrides, makes room.
        """
        assert self._fingerprint is not None
        archive = self._context.archive
        with archive.moving:
            duplicate = archive.ledger.done_with(self._fingerprint, self.slide.overrides)
            if duplicate is not None and archive.is_there(duplicate):
                own = duplicate.slide == self.slide.name
                self._finish(
                    duplicate.state if own else SlideState.SAME,
                    duplicate.reason if own else duplicate.slide,
                    duplicate=duplicate,
                )
                return True
            first = self._context.duplicates.first_with(self._fingerprint, self.slide.overrides, self.slide.name)
            if first != self.slide.name:
                self.waits_for = first
                self._enter(Phase.WAITING)
                return True
            self._make_room(config)
        return False

    def _make_room(self, config: SegmentConfig) -> None:
        if not (config.out / "run.json").is_file():
            return
        run = Run.open(config.out)
        card = run.card
        if card.image.fingerprint != self._fingerprint or not matches_options(card, config):
            with lock_run(config.out):
                run.remove_staged()  # nobody infers them any more
                now = dt.datetime.now(dt.UTC)
                self._context.archive.set_aside(self.slide.name, self._folder, now, card.image.fingerprint)

    def _about(self, record: SlideRecord) -> dict[str, object]:
        """Fields of the log line of a slide that ended."""
        facts = {"state": record.state.value, "tiles": record.tiles, "failed": record.failed_tiles}
        where = {"run": str(self._context.archive.run_path(record.folder)), "slide": str(self.slide.place)}
        return {**where, **facts, "reason": record.reason, "seconds": record.seconds}

    def _finish(
        self,
        state: SlideState,
        reason: str | None = None,
        failed_tiles: int = 0,
        *,
        permanent: bool = False,
        duplicate: SlideRecord | None = None,
    ) -> None:
        """Record the slide's outcome, once."""
        with self._ending:
            if self._phase is Phase.CLOSED:
                return
            record = self._record(state, reason, failed_tiles, permanent=permanent, duplicate=duplicate)
            self._outcome = state
            self._enter(Phase.CLOSED)
        self._context.archive.ledger.append(record)
        self._context.duplicates.release(self.slide.name)
        logger.info("slide ended", extra=self._about(record))

    def _record(
        self,
        state: SlideState,
        reason: str | None,
        failed_tiles: int = 0,
        *,
        permanent: bool = False,
        duplicate: SlideRecord | None = None,
    ) -> SlideRecord:
        stamp, run = self.slide.file_version, self._run
        return SlideRecord(
            slide=self.slide.name,
            state=state,
            folder=duplicate.folder if duplicate else self._folder,
            size_bytes=stamp.size_bytes if stamp else 0,
            version=stamp.version if stamp else "",
            fingerprint=self._fingerprint,
            asked=dict(self.slide.overrides),
            reason=reason,
            lasting=permanent,
            tiles=run.plan.count if run else duplicate.tiles if duplicate else 0,
            failed_tiles=failed_tiles,
            unreadable_tiles=self._unreadable_tiles,
            pixels=run.plan.image.area if run else duplicate.pixels if duplicate else 0,
            pixel_size=run.card.image.pixel_size if run else duplicate.pixel_size if duplicate else None,
            seconds=self._seconds,
            left_tiles=self._tiles_left if state is SlideState.BEGUN else 0,
            mask_bytes=size_of_tree(run.mask_path) if run and state is SlideState.DONE else 0,
            night=self._context.night,
            measures=duplicate.measures if duplicate else self._measures,
            stage_seconds=duplicate.stage_seconds if duplicate else self._stage_seconds,
        )
