"""The nightly flow: what is new or changed in an archive, through one pool of workers."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectConcurrentFuture

from flows.config.archive import COLUMNS, ArchiveConfig
from flows.config.deployed import allowed
from flows.errors import IncompleteError
from flows.lifecycle.flow_states import stoppable
from flows.lifecycle.stopping import StopRequest, stop_on_signals, stopped_by
from flows.nightly.clock import clock
from flows.nightly.context import NightContext
from flows.nightly.failures import reason_of
from flows.nightly.forecast import Forecast, forecast
from flows.nightly.left import Rates, earlier_seconds_per_byte, left_shares, tiles_per_byte, work_left
from flows.nightly.model import archive_model
from flows.nightly.night import NightSummary, ThroughputEstimate
from flows.nightly.notified import notified
from flows.nightly.page import publish
from flows.nightly.pipeline import Pipeline
from flows.nightly.prefect_pages import show_night
from flows.nightly.scan import ScanResult, scan, unopened_record
from flows.nightly.step_threads import in_thread
from flows.nightly.watch import NightWatch
from flows.pool.free_memory import free_memory_bytes
from flows.pool.open import open_pool
from flows.reporting.escaping import plain
from flows.reporting.logs import configure_logs
from flows.reporting.prefect_names import name_flow_run
from flows.reporting.progress import begin_stage
from flows.run.custom_model import absolute
from flows.run.model import Model
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.flags import flags_by_slide
from tiling.archives.history import NightHistory, latest_fact
from tiling.archives.listing import expect_disjoint, find_slides
from tiling.archives.slide import Slide
from tiling.archives.slide_record import SlideState
from tiling.errors import TilingError
from tiling.storage.place import lock_run
from unet_core.inference.predictor import MATHS_VERSION


@flow(name="segment-archive")
@stoppable
def segment_archive(config: ArchiveConfig) -> NightSummary:
    """Segment what is new or changed in an archive; the same call resumes."""
    configure_logs()
    config = allowed(config)
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # the command line notifies by itself, also of what comes before a flow
        return notified(config, partial(hold_night, config))
    return hold_night(config)


def hold_night(config: ArchiveConfig) -> NightSummary:
    """Hold one night, and record how it ended, or why it died."""
    expect_disjoint(config.source, config.out)
    now = clock.get()()
    name_flow_run(
        f"{config.out.name}: {'failed slides again' if config.failed_only else 'night'} of {now:%Y-%m-%d %H:%M}"
    )
    ends_at = time.monotonic() + config.seconds_left(now)
    slides = list_source(config)
    with ExitStack() as stack:
        stack.enter_context(lock_run(config.out))
        archive, model, bundle = reopen_archive(config)
        history = NightHistory.of(archive.ledger.events)
        found = scan(config, archive, slides)
        name = f"{now:%Y-%m-%d_%H%M%S}"
        archive.ledger.announce("night", begin_facts(config, name, now, len(found.todo)))
        try:
            free_bytes = free_memory_bytes()
            pool = stack.enter_context(open_pool(config))
            context = NightContext(archive, config, model, bundle, pool, free_bytes, name)
            stop = stack.enter_context(stop_on_signals(ends_at))
            night = segment_slides(context, found, stop, history, now)
            report(archive, night)
        except Exception as error:
            with suppress(TilingError, OSError):  # a full disk has no room for its own obituary
                archive.ledger.announce("died", {"night": name, "reason": reason_of(error)})
            raise
    if stop.by is not None:
        raise stopped_by(stop.by, night)
    if night.new_failures:
        raise IncompleteError(str(night), night)
    return night


def begin_facts(config: ArchiveConfig, name: str, now: dt.datetime, todo: int) -> dict[str, Any]:
    """Facts of the event with which a night begins; its options are those of the next, from whatever folder."""
    options = config.model_copy(update={"model": absolute(config.model), **_absolute_files(config)})
    return {
        "night": name,
        "began": now.timestamp(),
        "todo": todo,
        "config": options.model_dump(mode="json"),
    }


def _absolute_files(config: ArchiveConfig) -> dict[str, Path]:
    return {name: path.resolve() for name in ("card", "weights") if (path := getattr(config, name)) is not None}


def dry_run(config: ArchiveConfig) -> Forecast:
    """Forecast of a night: slides, time and space; nothing is written."""
    expect_disjoint(config.source, config.out)
    path = config.out
    card = empty_card(config)
    if not (path / "archive.json").is_file():
        archive = Archive(path, card)
    else:
        archive = Archive.open(path)
        # Of the model only a night knows, and of what an earlier version didn't say it decides.
        asked = {name: value for name, value in card.asked.items() if name in archive.card.asked}
        archive.expect(archive.card.model_copy(update={"asked": asked}))
    return forecast(config, archive, scan(config, archive))


def reopen_archive(config: ArchiveConfig) -> tuple[Archive, Model, str]:
    """Everything that can be refused for all slides is refused here."""
    begin_stage("plan")
    model, bundle = archive_model(config)
    card = empty_card(config).model_copy(update={"model": model.bundle.card.name, "model_digest": model.bundle.digest})
    return Archive.create_or_resume(config.out, card), model, bundle


def empty_card(config: ArchiveConfig) -> ArchiveCard:
    return ArchiveCard(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=config.model,
        model_digest="",
        maths_version=MATHS_VERSION,
        asked=config.label_options(),
    )


@task(name="scan", task_run_name="scan", cache_policy=NO_CACHE)
def list_source(config: ArchiveConfig) -> list[Slide]:
    """List the source's slides. A wrong source must leave no archive behind, whose options would then be fixed."""
    begin_stage("scan")
    return list(find_slides(config.source, config.out, COLUMNS))


def segment_slides(
    context: NightContext, found: ScanResult, stop: StopRequest, history: NightHistory, now: dt.datetime
) -> NightSummary:
    """Run the slides through the pool, and fold their records into the night's summary."""
    archive, shares = context.archive, left_shares(context.archive, found.todo)
    started, pace = time.monotonic(), ThroughputEstimate(found.todo, shares)
    watch = NightWatch(archive, pace)
    pipeline = Pipeline(context, begin_step)
    for job, outcome in pipeline.run(found.todo, stop):
        pace.add(outcome, job.slide, len(job.todo))
        watch.update(job, outcome, pipeline.queue)
    watch.end(pipeline.queue)
    for slide in found.gone:  # now, so that of a night that is killed the next tells
        archive.ledger.mark_gone(slide, context.night)
    for since, slides in ((context.night, found.missing), ("", found.back)):
        for slide in slides:
            archive.ledger.mark_missing(slide, since)
    for slide in found.refused:
        archive.ledger.refuse(unopened_record(slide, context.night))
    archive.ledger.flush()
    mine = [record for record in archive.ledger if record.night == context.night]
    looked_at = {record.slide for record in mine}
    waiting = [slide for slide in found.todo if slide.name not in looked_at]
    begun = [record for record in mine if record.state is SlideState.BEGUN]
    left = work_left(waiting, begun, rates_of(archive, pace, history))
    mine += [unopened_record(slide, context.night) for slide in found.settling]
    return NightSummary(
        archive=archive.path,
        name=context.night,
        records=tuple(sorted(mine, key=lambda record: record.slide)),
        known_failures=found.known_failures,
        unchanged=found.unchanged,
        waiting=len(waiting),
        ended_by=stop.name if stop.by else context.config.end_named(now) if left.slides else "its work",
        seconds=time.monotonic() - started,
        inference_seconds=pace.seconds,
        pixels=pace.pixels,
        busy_share=context.pool.busy.share,
        left_seconds=left.seconds,
        left=left,
        stood=found.stood,
        unreported=found.unreported,
        flags={slide: flags for slide, flags in flags_by_slide(archive.ledger).items() if slide in looked_at},
        warnings=history.warnings(now.timestamp(), context.config.every),
        zone=now.tzname() or "",
        missing=found.missing,
        is_rerun=context.config.failed_only,
    )


def rates_of(archive: Archive, pace: ThroughputEstimate, history: NightHistory) -> Rates:
    """Rates of tonight, or of earlier nights where tonight has none."""
    records = [*archive.ledger]
    earlier = earlier_seconds_per_byte(records, latest_fact(history.ended, "rate"))
    return Rates(
        tiles_per_byte=tiles_per_byte(records),
        seconds_per_byte=pace.seconds_per_byte or earlier,
        night_seconds=pace.seconds or latest_fact(history.ended, "inference_seconds"),
    )


def report(archive: Archive, night: NightSummary) -> None:
    """The night's page and tables, and what Prefect's pages show of it."""
    publish(archive, night)
    archive.ledger.announce("morning", morning_facts(night))
    show_night(night)


def morning_facts(night: NightSummary) -> dict[str, Any]:
    """Facts of the event with which a night ends: what status shows, and what later nights estimate from."""
    return {
        "night": night.name,
        "told": str(night),
        "rate": night.megapixels_per_second,
        "inference_seconds": night.inference_seconds,
        "verdict": night.verdict.value,
        "counts": night.counts,
        "left": str(night.left) if night.left.slides else "",
        "ended_at": clock.get()().timestamp(),
    }


def begin_step(step: str, slide: Slide, work: Callable[[], None]) -> Future[Any]:
    """A step of a slide in another thread: as a task of its own, but for small images.

    A task costs some 60 ms of processor time, half of it in Prefect's server: more than the step itself of such images.
    """
    if slide.is_small:
        return in_thread(f"{step} {slide.name}", work)
    future = cast("PrefectConcurrentFuture[None]", _STEPS[step].submit(plain(slide.name), work))
    return future.wrapped_future


@task(name="plan", task_run_name="plan {slide}", cache_policy=NO_CACHE)
def plan_slide(slide: str, work: Callable[[], None]) -> None:
    work()


@task(name="stage", task_run_name="stage {slide}", cache_policy=NO_CACHE)
def stage_slide(slide: str, work: Callable[[], None]) -> None:
    work()


@task(name="close", task_run_name="close {slide}", cache_policy=NO_CACHE)
def close_slide(slide: str, work: Callable[[], None]) -> None:
    work()


_STEPS = {"plan": plan_slide, "stage": stage_slide, "close": close_slide}
