"""Nights over an archive, through a pool that the test holds or as a person starts them, and their records."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flows.config.archive import COLUMNS, ArchiveConfig
from flows.lifecycle.stopping import StopRequest
from flows.nightly.context import NightContext
from flows.nightly.model import archive_model
from flows.nightly.pipeline import Pipeline
from flows.nightly.scan import scan
from flows.nightly.slide_job import SlideJob
from flows.pool.pool import Pool
from flows.pool.scheduler import TileOutcome
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.listing import find_slides
from tiling.archives.slide import Slide
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.runs.run import Run
from tiling.source import open_source

Hook = Callable[[str, str], None]

QUICK = ("--core", 64, "--foreground", "none", "--workers", 2, "--settle", "0s")


def archive_at(path: Path) -> Archive:
    """An archive that no night has seen yet."""
    card = ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})
    return Archive.create_or_resume(path, card)


def context_of(source: Path, model: Path, pool: Pool, **asked: object) -> NightContext:
    given: dict[str, object] = {"source": str(source), "out": source.parent / "out", "model": str(model), "core": 64}
    config = ArchiveConfig.model_validate({**given, "foreground": "none", "settle": 0, **asked})
    card = ArchiveCard(created="", model="tiny", model_digest="", maths_version=1, asked={})
    loaded, bundle = archive_model(config)
    return NightContext(Archive.create_or_resume(config.out, card), config, loaded, bundle, pool, 2**40, "night")


def carry(
    context: NightContext,
    stop: StopRequest | None = None,
    after: Hook = lambda step, slide: None,
    slides: Sequence[Slide] | None = None,
) -> tuple[list[tuple[str, int]], dict[str, SlideRecord]]:
    """All slides, or those; the tiles in order of their ends, and the records."""
    if slides is None:
        slides = sorted(find_slides(context.config.source, context.config.out, COLUMNS), key=lambda slide: slide.name)
    tiles: list[tuple[str, int]] = []
    with ThreadPoolExecutor(8) as threads:

        def begin(step: str, slide: Slide, work: Callable[[], None]) -> Future[Any]:
            def both() -> None:
                work()
                after(step, slide.name)

            return threads.submit(both)

        for work, ended in Pipeline(context, begin).run(slides, stop or StopRequest()):
            tiles.append(named_outcome(work, ended))
    return tiles, {record.slide: record for record in context.archive.ledger}


def named_outcome(job: SlideJob, outcome: TileOutcome) -> tuple[str, int]:
    return job.slide.name, outcome.result.tile


def hold(source: Path, model: Path, pool: Pool, **asked: object) -> dict[str, SlideRecord]:
    """A night: what has to be looked at, through the pool; the archive's records afterwards."""
    context = context_of(source, model, pool, **asked)
    return carry(context, slides=scan(context.config, context.archive).todo)[1]


def records(archive: Path) -> dict[str, SlideRecord]:
    return {record.slide: record for record in Archive.open(archive).ledger}


def latest(archive: Path) -> dict[str, object]:
    pages = sorted(archive.glob("nights/2*.json"))
    return json.loads(pages[-1].read_text())


def assert_done(known: dict[str, SlideRecord]) -> None:
    assert known
    assert {name: (record.state, record.reason) for name, record in known.items()} == dict.fromkeys(
        known, (SlideState.DONE, None)
    )


def expect_own_masks(source: Path, known: dict[str, SlideRecord]) -> None:
    """Every slide's record leads to the mask of what the slide holds now."""
    for path in source.iterdir():
        record = known[path.name]
        assert record.is_settled, record
        with open_source(path) as image:
            assert Run.open(source.parent / "out" / record.folder).card.image.fingerprint == image.fingerprint()
