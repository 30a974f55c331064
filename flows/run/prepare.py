"""Preparation of a run folder with its plan: everything that can be refused is refused here."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.config.run import SegmentConfig
from flows.pool.free_memory import free_memory_bytes
from flows.pool.scheduler import IN_FLIGHT_PER_ACTOR
from flows.reporting.escaping import plain
from flows.run.custom_model import absolute, reference_of, with_bundle
from flows.run.objects import are_numbered, asked_image_labels, asked_rule, takes_probabilities
from flows.run.preflight import check_fit, requirements_of
from flows.worker.model import local_bundle
from flows.worker.tuning import Tuning, TuningRequest
from tiling.errors import ExportError, SourceError
from tiling.export.export_run import EXPORTS_ASKED
from tiling.export.formats import chosen_formats
from tiling.export.subject import Subject
from tiling.geometry import Box, Halo, OutputGrid, ceil_to
from tiling.objects.image_labels import ImageLabels
from tiling.objects.record import ask_for_objects
from tiling.objects.spec import ObjectSpec
from tiling.objects.write_labels import ask_for_labels
from tiling.plan import Tile, TileMemory, TilePlan
from tiling.runs.card import ClassCard, GeometryCard, ImageCard, MemoryCard, ModelRef, NoDataCard, RunCard
from tiling.runs.foreign_files import sentence, unknown_files
from tiling.runs.ledger import CARD, PLANNED, LedgerState, TileRecord, TileState
from tiling.runs.placement import Placement
from tiling.runs.repair import create_images
from tiling.runs.run import Run
from tiling.runs.skipped import Skipped
from tiling.runs.unchanged_source import VerifiedSource, changed, open_with_version
from tiling.runs.uncomputed import SHARE
from tiling.selection.choose_view import ViewChoice, choose_view
from tiling.selection.foreground import Foreground, find_foreground
from tiling.source import ImageSource
from tiling.view import View
from unet_core.bounds import Footprint, approximate_footprint, footprint
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.bundles.card import ClassInfo
from unet_core.inference.memory import activation_bytes
from unet_core.inference.predictor import MATHS_VERSION
from unet_core.inference.tta import tta_footprint

logger = logging.getLogger(__name__)

Tuner = Callable[[TuningRequest], Tuning]

DEFAULT_CORE_PX = 512
WORKER_FIXED_BYTES = 600 * 2**20  # interpreter, torch and Zarr: 0.5 GiB measured between two tiles, and some room
THREADS = 2
AHEAD = 64
VERSIONS = ("overtile", "torch", "zarr", "tifffile", "imagecodecs", "numpy", "ray", "prefect")


def prepare(config: SegmentConfig, workers: int, tuner: Tuner) -> Run:
    """Open or make the run folder for what was asked; raises as `prepared` does."""
    return prepared(config, workers, tuner).run


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run whose plan stands, and its folded ledger."""

    run: Run
    state: LedgerState


def prepared(
    config: SegmentConfig, workers: int, tuner: Tuner, loader: Callable[[SegmentConfig], Model] | None = None
) -> Prepared:
    """Open or make the run folder for what was asked.

    Args:
        config: what was asked.
        workers: actors that will compute side by side.
        tuner: finds out what was left open, on the device that will compute.
        loader: in place of `load_model`, for a caller that keeps models.

    Raises:
        SourceError: the image can't be opened, or the model doesn't fit it.
        PlanError: the geometry is inexact or needs more memory than there is.
        RunError: the folder holds a different run.
        FootprintError: a network without finite bounds, and no leave to run it approximately.
    """
    source, version = open_with_version(config.image, View(series=config.series))
    with source:
        config = with_bundle(config)
        return prepare_with((loader or load_model)(config), source, version, config, workers, tuner)


@dataclass(frozen=True, slots=True)
class Model:
    """A network and what its graph says; the same for every image."""

    bundle: Bundle
    found: Footprint


def load_model(config: SegmentConfig) -> Model:
    """Load the bundle that was asked for, and walk its graph."""
    with local_bundle(config.model) as folder:
        bundle = load_bundle(folder)
    return Model(bundle, find_footprint(bundle, config))


def prepare_with(
    model: Model,
    source: ImageSource,
    begun_with: str,
    config: SegmentConfig,
    workers: int,
    tuner: Tuner,
    available_bytes: int | None = None,
) -> Prepared:
    """The same, with the model at hand and the image open.

    `begun_with` is the version that the image's files had before it was opened. `available_bytes` is the memory that
    was free before the workers took theirs; None where they have none yet.
    """
    started = time.monotonic()
    wanted = intend(model, source, begun_with, config, workers, tuner, available_bytes)
    choice, image, memory = wanted.choice, wanted.image, wanted.memory
    memory_card = MemoryCard(worker_bytes=memory.worker_bytes, workers=workers)
    card = make_card(wanted.config, choice, image, model.bundle, wanted.plan, wanted.tuning, memory_card)
    run = Run.create_or_resume(config.out, card, choice.outline)
    if message := sentence(unknown_files(run)):
        logger.warning("run %s: %s", run.path, message)
    state = run.ledger.fold()
    create_images(run, state)
    if state.last_event(PLANNED) is None:
        _skip_background(run, state, source, choice, started)
    asked = state.last_event(EXPORTS_ASKED)
    if wanted.formats != (asked.facts["formats"] if asked is not None else []):
        state.add(run.ledger.announce(EXPORTS_ASKED, {"formats": wanted.formats}))
    ask_for_objects(run, state, wanted.objects)
    ask_for_labels(run, state, wanted.labels)
    return Prepared(run, state)


@dataclass(frozen=True, slots=True)
class Intended:
    """A run as it would be: nothing of it is written.

    `objects` is the rule by which it has objects, None for none, and `labels` where in the image they go, too; `config`
    what was asked, with what that takes.
    """

    choice: ViewChoice
    tuning: Tuning
    plan: TilePlan
    memory: TileMemory
    image: ImageCard
    formats: list[str]
    objects: ObjectSpec | None
    labels: ImageLabels | None
    config: SegmentConfig


def intend(
    model: Model,
    source: ImageSource,
    begun_with: str,
    config: SegmentConfig,
    workers: int,
    tuner: Tuner,
    available_bytes: int | None = None,
) -> Intended:
    """Choose pixels, geometry and precision, and refuse what can't be; as `prepare_with`."""
    bundle, found = model.bundle, model.found
    available_bytes = available_bytes or free_memory_bytes()
    choice = choose_view(source, config.view_request(), requirements_of(bundle.card))
    if "orientation" in choice.notes:
        logger.warning("%s: %s", plain(str(config.image)), choice.notes["orientation"])
    with source.viewed(choice.view) as seen:
        check_fit(seen, bundle.card)
        settled = resolve_options(config, choice, workers, tuner, available_bytes)
        plan = make_plan(seen, choice.level, settled.core_px or smallest_good_core(found), found)
        memory = tile_memory(plan, bundle, settled.precision, lacks_data=seen.may_lack_data)
        memory.check(workers, available_bytes, plan)
        if source.version() != begun_with:
            raise changed(source.path, "was written")
        image = image_card(config, choice, seen, source, bundle)
        numbered = are_numbered(config, bundle.card)
        formats = wanted_formats(seen, choice.level, plan, config, numbered=numbered)
        size = seen.levels[choice.level].pixel_size
        objects = asked_rule(config, bundle.card, formats, size and size.on(plan.grid))
        if takes_probabilities(objects, trust_code=config.trust_code) and not config.probabilities:
            config = config.model_copy(update={"probabilities": True})
            formats = wanted_formats(seen, choice.level, plan, config, numbered=numbered)
        labels = asked_image_labels(config, image, bundle.card.name)
    return Intended(choice, settled, plan, memory, image, formats, objects, labels, config)


def wanted_formats(
    source: ImageSource, level: int, plan: TilePlan, config: SegmentConfig, *, numbered: bool = False
) -> list[str]:
    """Names of the formats with which the run is to end; what the run can't be said in is refused where it is asked."""
    placement = Placement.of(source, level, plan.grid)
    subject = Subject(str(config.image), placement, plan.mask.shape, config.probabilities)
    names: list[str] = []
    for each in chosen_formats(config.export, placement, probabilities=config.probabilities, numbered=numbered):
        with suppress(ExportError):
            each.expect(subject)
            names.append(each.name)
    return names


def find_footprint(bundle: Bundle, config: SegmentConfig) -> Footprint:
    """The exact footprint, or the approximate one that the user gave leave for."""
    bands, halo_px = len(bundle.card.bands), config.approximate_halo_px
    found = footprint(bundle.module, bands) if halo_px is None else approximate_footprint(bundle.module, bands, halo_px)
    return tta_footprint(found, config.tta)


def resolve_options(
    config: SegmentConfig, choice: ViewChoice, workers: int, tuner: Tuner, available_bytes: int
) -> Tuning:
    """Resolve the options left open: as the existing run has them, else as measured on the device."""
    core_px, precision = config.core, config.precision
    if (config.out / "run.json").is_file():
        known = Run.open(config.out).card
        core_px = core_px or known.geometry.core_px
        precision = known.precision if precision == "auto" else precision
        return Tuning(precision, core_px, known.notes)
    request = TuningRequest(
        image=config.image.resolve(),
        view=choice.view,
        level=choice.level,
        model=absolute(config.model),
        precision=precision,
        tta=config.tta,
        core_px=core_px,
        approximate_halo_px=config.approximate_halo_px,
        memory_bytes=max(0, available_bytes // workers - WORKER_FIXED_BYTES),
        workers=workers,
    )
    return tuner(request) if request.is_needed else Tuning(precision, core_px, {})


def smallest_good_core(found: Footprint) -> int:
    """A core where none can be measured: the default, on the stride grid."""
    return ceil_to(DEFAULT_CORE_PX, max(found.stride))


def make_plan(source: ImageSource, level: int, core_px: int, found: Footprint) -> TilePlan:
    """Place the tiles: the model's footprint decides the reads."""
    wanted = source.levels[level]
    grid = OutputGrid(found.scale, found.offset, Halo(*found.context.sides))
    return TilePlan((wanted.height, wanted.width), core_px, found.stride, Halo(*found.halo.sides), grid)


def tile_memory(plan: TilePlan, bundle: Bundle, precision: str, *, lacks_data: bool = False) -> TileMemory:
    """Memory of a worker for this plan, from the network's own graph."""
    height, width = plan.read_shape
    bands = len(bundle.card.bands)
    itemsize = {"uint8": 1, "uint16": 2, "float32": 4}[bundle.card.dtype]
    # Normalisation holds the tile twice in float32 before the network sees it.
    tile_bytes = height * width * bands * (itemsize + 8)
    if lacks_data:  # a band that says where, packed and unpacked, and sums of it
        tile_bytes += height * width * (bands * itemsize + itemsize + 6)
    activations = activation_bytes(bundle.module, bands, plan.read_shape, precision)
    return TileMemory(tile_bytes, activations, IN_FLIGHT_PER_ACTOR, WORKER_FIXED_BYTES)


def image_card(
    config: SegmentConfig, choice: ViewChoice, seen: ImageSource, whole: ImageSource, bundle: Bundle
) -> ImageCard:
    """The card of an image; `seen` is what is segmented of it."""
    level = seen.levels[choice.level]
    size = level.pixel_size
    return ImageCard(
        path=str(config.image.resolve()),
        fingerprint=whole.fingerprint(),
        version=whole.version(),
        format=seen.format,
        level=choice.level,
        extent=(level.height, level.width),
        bands=seen.bands,
        dtype=str(seen.dtype),
        pixel_size=(size.y, size.x, size.unit) if size else None,
        view=choice.view,
        origin_px=origin if any(origin := seen.origin_px(choice.level)) else None,
        asked=config.view_request().as_given(),
        no_data=NoDataCard.of(seen, whole, bundle.card.normalization.mean),
    )


def make_card(
    config: SegmentConfig,
    choice: ViewChoice,
    image: ImageCard,
    bundle: Bundle,
    plan: TilePlan,
    settled: Tuning,
    memory: MemoryCard,
) -> RunCard:
    """The run's card."""
    model = bundle.card
    return RunCard(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        image=image,
        model=ModelRef(
            reference=reference_of(config),
            name=model.name,
            digest=bundle.digest,
            classes=_named(model.classes),
        ),
        geometry=GeometryCard.of(plan),
        precision=settled.precision,
        tta=config.tta,
        compiled=config.compiled,
        probabilities=_named(model.predicted) if config.probabilities else (),
        approximate=config.approximate_halo_px is not None,
        maths_version=MATHS_VERSION,
        foreground=config.foreground,
        foreground_digest=None if config.foreground in {"auto", "none"} else _digest_of(config.foreground),
        memory=memory,
        versions={"python": platform.python_version(), **installed_versions()},
        notes=choice.notes | settled.notes,
    )


def installed_versions() -> dict[str, str]:
    """Versions of the packages that are there; Ray and Prefect needn't be."""
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


def _skip_background(run: Run, state: LedgerState, whole: ImageSource, choice: ViewChoice, started: float) -> None:
    """Write background where nothing is worth computing, or nothing was asked for; then the plan stands."""
    image, view = run.card.image, choice.view
    # Values as the image has them: what is no data is found before they are changed.
    seen = view.model_copy(update={"stretch": None}) if view is not None else None
    opened = whole.viewed(seen, run.fill)
    with VerifiedSource(image.path, seen, image.fingerprint, image.version, run.fill, opened) as source:
        found = source.read(lambda pixels: find_foreground(pixels, image.level, run.card.foreground))
        skipped = _skip(run, state, source, found)
    reason = found.reason if run.outline is None else f"{found.reason}; those outside the polygons are skipped"
    if found.remark:
        logger.warning("%s: %s", image.path, found.remark)
        reason = f"{reason}. {found.remark}"
    share = found.share(run.plan.extent, _inside(run, found))
    seconds = round(time.monotonic() - started, 3)
    facts = {"skipped": skipped, "foreground": reason, SHARE: share, "seconds": seconds}
    state.add(run.ledger.announce(PLANNED, {**facts, CARD: run.card.digest()}))


def _skip(run: Run, state: LedgerState, source: VerifiedSource, found: Foreground) -> int:
    """Write what skipped tiles hold, and say how many they are. Two threads read, where some may hold no data."""
    mask, count = run.open_mask(), 0
    candidates = (tile for tile in run.plan.tiles() if _is_outside(run, tile) or not found.keeps(tile))

    def look(tile: Tile) -> tuple[Tile, Skipped | None]:
        return tile, _skipped(run, source, found, tile)

    with ThreadPoolExecutor(THREADS) as threads:
        while batch := list(islice(candidates, AHEAD)):
            for tile, skipped in threads.map(look, batch) if run.fill is not None else map(look, batch):
                if skipped is not None:
                    digest = mask.write(tile, skipped.labels)
                    record = TileRecord(tile.index, TileState.SKIPPED, digest=digest, empty=skipped.empty)
                    run.ledger.append(record)
                    state.add(record)
                    count += 1
    return count


def _skipped(run: Run, source: VerifiedSource, found: Foreground, tile: Tile) -> Skipped | None:
    """What a tile holds that is to be skipped; None where it is computed all the same.

    The coarse view may show a tile empty that isn't, as where overviews take one pixel of many. What doesn't decode is
    tried, and fails with its reason, but where nobody asked for it.
    """
    if run.fill is None:
        return Skipped.of(run, None, tile)
    is_outside = _is_outside(run, tile)
    try:
        skipped = source.read(lambda image: Skipped.of(run, image, tile))
    except SourceError:
        return Skipped.of(run, None, tile) if is_outside else None
    is_judged = is_outside or not found.is_blind(tile)
    return skipped if is_judged or not skipped.has_data else None


def _inside(run: Run, found: Foreground) -> NDArray[np.bool_] | None:
    """Where the foreground's coarse pixels lie in the polygons that were asked for."""
    if run.outline is None or found.coarse is None:
        return None
    height, width = found.coarse.shape
    scale = run.plan.grid.scale
    sides = found.factor[0] * float(scale[0]), found.factor[1] * float(scale[1])
    return run.outline.polygons.labels(Box(0, 0, height, width), sides).astype(np.bool_)


def _is_outside(run: Run, tile: Tile) -> bool:
    """Whether a tile shares nothing with the polygons that were asked for."""
    box = tile.valid
    return run.outline is not None and not run.outline.meets(box.y0, box.x0, box.y1, box.x1)
