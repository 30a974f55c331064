"""Preparation of a run folder with its plan: everything that can be refused is refused here."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows.config.run import SegmentConfig
from flows.run.background import as_it_is, foreground_of, skip_background
from flows.run.custom_model import reference_of, with_bundle
from flows.run.intended import Intended, RunRequest, Tuner, intend
from flows.run.model import load_model
from tiling.errors import SourceError
from tiling.export.export_run import EXPORTS_ASKED
from tiling.export.foreign_files import sentence, unknown_files
from tiling.objects.record import ask_for_objects
from tiling.objects.write_labels import ask_for_labels
from tiling.runs.card import ClassCard, GeometryCard, MemoryCard, ModelRef, RunCard
from tiling.runs.ledger import PLANNED, LedgerState
from tiling.runs.repair import create_images
from tiling.runs.run import Run
from tiling.runs.unchanged_source import open_with_version
from tiling.runs.walk import strip_px
from tiling.selection.outline import Outline
from tiling.storage.place import Place
from tiling.storage.task_map import TaskMap
from unet_core.bundles.bundle import Bundle
from unet_core.bundles.card import ClassInfo
from unet_core.inference.predictor import MATHS_VERSION

logger = logging.getLogger(__name__)

VERSIONS = ("overtile", "torch", "zarr", "tifffile", "imagecodecs", "numpy", "ray", "prefect")


def prepare(config: SegmentConfig, workers: int, tuner: Tuner) -> Run:
    """Open or make the run folder of a configuration; raises as `prepared` does."""
    return prepared(config, workers, tuner).run


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run whose plan stands, and its folded ledger.

    Attributes:
        run: the run.
        state: its folded ledger.
        strip_px: width of the strips in which its image is read; None where that is row by row.
    """

    run: Run
    state: LedgerState
    strip_px: int | None = None


def prepared(
    config: SegmentConfig,
    workers: int,
    tuner: Tuner,
    tasks: Callable[[int], TaskMap | None] | None = None,
) -> Prepared:
    """Open or make the run folder for what was asked.

    Args:
        config: what was asked.
        workers: actors that will compute side by side.
        tuner: finds out what was left open, on the device that will compute.
        tasks: a map of reading so many pixels in other processes, where there are any.

    Raises:
        SourceError: the image can't be opened, or the model doesn't fit it.
        PlanError: the geometry is inexact or needs more memory than there is.
        RunError: the folder holds a different run.
        FootprintError: a network without finite bounds, and no leave to run it approximately.
    """
    source, version = open_with_version(config.image, config.image_view())
    with source:
        config = with_bundle(config)
        model = load_model(config)
        return prepare_with(RunRequest(model, source, version, config, workers, tuner, tasks=tasks))


def prepare_with(request: RunRequest) -> Prepared:
    """Open or make the run folder with the model at hand and the image open; raises as `prepared` does."""
    started = time.monotonic()
    wanted = intend(request)
    card = make_card(wanted, request.model.bundle, request.workers)
    run, state = _planned(request, wanted, card, started)
    asked = state.last_event(EXPORTS_ASKED)
    if wanted.formats != (asked.facts["formats"] if asked is not None else []):
        state.add(run.ledger.announce(EXPORTS_ASKED, {"formats": wanted.formats}, soon=True))
    ask_for_objects(run, state, wanted.objects)
    ask_for_labels(run, state, wanted.labels)
    run.ledger.flush()
    return Prepared(run, state, strip_px(request.source))


def _planned(request: RunRequest, wanted: Intended, card: RunCard, started: float) -> tuple[Run, LedgerState]:
    """The run of a card with its plan; its background is written where an earlier driver hasn't done that.

    The squares of tissue stand in the card of a new run, which is never written again: so the image is seen before.
    """
    out, outline = request.config.out, wanted.choice.outline
    if (out / "run.json").is_file():
        run, state = _opened(out, card, outline)
        if state.last_event(PLANNED) is None:
            with as_it_is(run.card, request.source, wanted.choice) as source:
                skip_background(run, state, source, foreground_of(run.card, source, request.tasks), started)
        return run, state
    with as_it_is(card, request.source, wanted.choice) as source:
        found = foreground_of(card, source, request.tasks)
        run, state = _opened(out, card.with_squares(found.squares), outline)
        skip_background(run, state, source, found, started)
    return run, state


def _opened(out: Place, card: RunCard, outline: Outline | None) -> tuple[Run, LedgerState]:
    run = Run.create_or_resume(out, card, outline)
    if message := sentence(unknown_files(run)):
        logger.warning("run %s: %s", run.path, message)
    state = run.ledger.fold()
    create_images(run, state)
    return run, state


def make_card(wanted: Intended, bundle: Bundle, workers: int) -> RunCard:
    """The run's card."""
    model, config = bundle.card, wanted.config
    return RunCard(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        image=wanted.image,
        model=ModelRef(
            reference=reference_of(config),
            name=model.name,
            digest=bundle.digest,
            classes=_named(model.classes),
        ),
        geometry=GeometryCard.of(wanted.plan),
        precision=wanted.tuning.precision,
        tta=config.tta,
        compiled=config.compiled,
        probabilities=_named(model.predicted) if config.probabilities else (),
        approximate=config.approximate_halo_px is not None,
        maths_version=MATHS_VERSION,
        foreground=config.foreground,
        foreground_digest=None if config.foreground in {"auto", "none"} else _digest_of(config.foreground),
        memory=MemoryCard(worker_bytes=wanted.memory.worker_bytes, workers=workers),
        versions={"python": platform.python_version(), **installed_versions()},
        notes=wanted.choice.notes | wanted.tuning.notes,
    )


@cache
def installed_versions() -> Mapping[str, str]:
    """Versions of the packages that are there; Ray and Prefect needn't be. Each takes a millisecond or two to read."""
    found: dict[str, str] = {}
    for name in VERSIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _digest_of(mask_image: str) -> str:
    """By what a foreground's own image is known at a resume.

    Raises:
        SourceError: it can't be read.
    """
    try:
        return hashlib.sha256(Path(mask_image).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise SourceError(
            f"foreground mask {mask_image} can't be read ({error.strerror or error}): it says what is computed; "
            f"give the path of an image"
        ) from error


def _named(classes: Sequence[ClassInfo]) -> tuple[ClassCard, ...]:
    return tuple(ClassCard(name=item.name, color=item.color) for item in classes)
