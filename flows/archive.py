"""The nightly flow: what is new or changed in an archive, through one pool of workers."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectConcurrentFuture

from flows.config.archive import COLUMNS, ArchiveConfig
from flows.config.deployed import allowed
from flows.errors import StoppedError
from flows.lifecycle.flow_states import finished, stoppable
from flows.lifecycle.stopping import StopRequest, stop_on_signals
from flows.nightly.context import NightContext
from flows.nightly.forecast import Forecast, forecast
from flows.nightly.model import archive_model
from flows.nightly.night import NightSummary, ThroughputEstimate
from flows.nightly.page import publish
from flows.nightly.pipeline import Pipeline
from flows.nightly.scan import ScanResult, scan, unopened_record
from flows.nightly.watch import NightWatch
from flows.pool.free_memory import free_memory_bytes
from flows.pool.open import open_pool
from flows.reporting.escaping import markdown, plain
from flows.reporting.logs import configure_logs
from flows.reporting.prefect_events import recorded
from flows.reporting.progress import begin_stage
from flows.run.prepare import Model
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.listing import expect_disjoint, find_slides
from tiling.archives.slide import Slide
from tiling.archives.slide_ledger import SlideState
from tiling.storage.place import lock_run
from unet_core.inference.predictor import MATHS_VERSION


@flow(name="segment-archive")
@stoppable
def segment_archive(config: ArchiveConfig) -> NightSummary:
    """Segment what is new or changed in an archive; the same call resumes."""
    configure_logs()
    config = allowed(config)
    expect_disjoint(config.source, config.out)
    now = dt.datetime.now().astimezone()
    ends_at = time.monotonic() + config.seconds_left(now)
    slides = list_source(config)
    with ExitStack() as stack:
        stack.enter_context(lock_run(config.out))
        archive, model, bundle = reopen_archive(config)
        found = scan(config, archive, slides)
        archive.ledger.announce("night", {"config": config.model_dump(mode="json")})
        free_bytes = free_memory_bytes()
        pool = stack.enter_context(open_pool(config))
        context = NightContext(archive, config, model, bundle, pool, free_bytes, f"{now:%Y-%m-%d_%H%M%S}")
        stop = stack.enter_context(stop_on_signals(ends_at))
        night = segment_slides(context, found, stop)
        report(archive, night)
    if stop.by is not None:
        raise StoppedError.by(stop.by)
    return finished(night, str(night))


def dry_run(config: ArchiveConfig) -> Forecast:
    """Forecast of a night: slides, time and space; nothing is written."""
    expect_disjoint(config.source, config.out)
    path = config.out
    archive = Archive.open(path) if (path / "archive.json").is_file() else Archive(path, empty_card(config))
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


@task(name="scan", cache_policy=NO_CACHE)
def list_source(config: ArchiveConfig) -> list[Slide]:
    """List the source's slides. A wrong source must leave no archive behind, whose options would then be fixed."""
    begin_stage("scan")
    return list(find_slides(config.source, config.out, COLUMNS))


def segment_slides(context: NightContext, found: ScanResult, stop: StopRequest) -> NightSummary:
    """Run the slides through the pool, and fold their records into the night's summary."""
    started, pace = time.monotonic(), ThroughputEstimate(found.todo)
    watch = NightWatch(context.archive, pace)
    pipeline = Pipeline(context, begin_step)
    for job, outcome in pipeline.run(found.todo, stop):
        pace.add(outcome, job.slide, len(job.todo))
        watch.update(job, outcome, pipeline.queue)
    watch.end(pipeline.queue)
    for slide in found.gone:  # now, so that of a night that is killed the next tells
        context.archive.ledger.mark_gone(slide, context.night)
    mine = [record for record in context.archive.ledger if record.night == context.night]
    waiting = len(found.todo) + len(found.gone) - len(mine)
    begun = any(record.state is SlideState.BEGUN for record in mine)
    mine += [unopened_record(slide, context.night) for slide in (*found.settling, *found.refused)]
    return NightSummary(
        archive=context.archive.path,
        name=context.night,
        records=tuple(sorted(mine, key=lambda record: record.slide)),
        known_failures=found.known_failures,
        unchanged=found.unchanged,
        waiting=waiting,
        ended_by=stop.by.name if stop.by else "the time" if stop.is_requested and (waiting or begun) else "its work",
        seconds=time.monotonic() - started,
        inference_seconds=pace.seconds,
        pixels=pace.pixels,
        busy_share=context.pool.busy.share,
        left_seconds=pace.left_seconds if waiting else 0.0,
    )


def report(archive: Archive, night: NightSummary) -> None:
    """The night's page and table, and the failed slides in Prefect."""
    publish(archive, night)
    archive.ledger.announce("morning", {"night": night.name, "told": str(night), "rate": night.megapixels_per_second})
    if night.failed:
        rows = [{"slide": markdown(r.slide), "reason": markdown(r.reason or "")} for r in night.failed[:1000]]
        message = f"`{markdown(night.rerun_command)}`"
        recorded(partial(create_table_artifact, key="failed-slides", table=rows, description=message))


def begin_step(step: str, slide: str, work: Callable[[], None]) -> Future[Any]:
    """A step of a slide as a task of its own, in another thread."""
    future = cast("PrefectConcurrentFuture[None]", _STEPS[step].submit(plain(slide), work))
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
