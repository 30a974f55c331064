"""Intended run: its pixels, geometry, precision and results as they would be, with nothing of it written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from flows.config.run import OBJECTS_NONE, SegmentConfig
from flows.pool.free_memory import free_memory_bytes
from flows.pool.scheduler import IN_FLIGHT_PER_ACTOR
from flows.reporting.escaping import plain
from flows.run.custom_model import absolute
from flows.run.model import Model
from flows.run.objects import are_numbered, asked_image_labels, asked_rule, takes_probabilities
from flows.run.preflight import check_fit, requirements_of
from flows.worker.tuning import Tuning, TuningRequest
from tiling.export.formats import chosen_formats
from tiling.export.subject import Subject
from tiling.geometry import Halo, OutputGrid, ceil_to
from tiling.georeference.placement import Placement
from tiling.objects.image_labels import ImageLabels
from tiling.objects.spec import ObjectSpec
from tiling.plan import TileMemory, TilePlan
from tiling.runs.card import ImageCard, NoDataCard
from tiling.runs.run import Run
from tiling.runs.unchanged_source import changed
from tiling.selection.choose_view import ViewChoice, choose_view
from tiling.source import ImageSource
from tiling.storage.task_map import TaskMap
from unet_core.bounds import Footprint
from unet_core.bundles.bundle import Bundle
from unet_core.inference.memory import activation_bytes, rows_at_once

logger = logging.getLogger(__name__)

TOLD = ("orientation", "damaged")
"""Notes on an image that a person is told when its run begins, and that no later line says."""

Tuner = Callable[[TuningRequest], Tuning]

DEFAULT_CORE_PX = 512
WORKER_FIXED_BYTES = 600 * 2**20  # interpreter, torch and Zarr: 0.5 GiB measured between two tiles, and some room


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Run that is asked for, with what is at hand for it: the model, the open image, and who will compute.

    `begun_with` is the version that the image's files had before it was opened. `workers` actors compute side by side;
    `tuner` finds out what was left open, on their device. `available_bytes` is the memory that was free before they
    took theirs; None where they have none yet. `tasks` is a map of reading so many pixels in other processes.
    """

    model: Model
    source: ImageSource
    begun_with: str
    config: SegmentConfig
    workers: int
    tuner: Tuner
    available_bytes: int | None = None
    tasks: Callable[[int], TaskMap | None] | None = None


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


def intend(request: RunRequest) -> Intended:
    """Choose pixels, geometry and precision, and refuse what can't be.

    Raises:
        SourceError, PlanError, RunError: as `flows.run.prepare.prepared` does.
    """
    source, config, workers = request.source, request.config, request.workers
    bundle, found = request.model.bundle, request.model.found
    available_bytes = request.available_bytes or free_memory_bytes()
    choice = choose_view(source, config.view_request(), requirements_of(bundle.card))
    for fact in TOLD:
        if fact in choice.notes:
            logger.warning("%s: %s", plain(str(config.image)), choice.notes[fact])
    with source.viewed(choice.view) as seen:
        check_fit(seen, bundle.card)
        settled = resolve_options(config, choice, workers, request.tuner, available_bytes)
        plan = make_plan(seen, choice.level, settled.core_px or smallest_good_core(found), found)
        in_strips = config.tta == "none" and not config.compiled and config.approximate_halo_px is None
        memory = tile_memory(plan, bundle, settled.precision, lacks_data=seen.may_lack_data, in_strips=in_strips)
        memory.check(workers, available_bytes, plan)
        if source.version() != request.begun_with:
            raise changed(source.path, "was written")
        image = image_card(config, choice, seen, source, bundle)
        numbered = are_numbered(config, bundle.card)
        placement = Placement.of(seen, choice.level, plan.grid)
        formats = chosen_formats(config.export, placement, probabilities=config.probabilities, numbered=numbered)
        size = seen.levels[choice.level].pixel_size
        objects = asked_rule(config, bundle.card, [each.name for each in formats], size and size.on(plan.grid))
        if takes_probabilities(objects, trust_code=config.trust_code) and not config.probabilities:
            config = config.model_copy(update={"probabilities": True})
        wanted = wanted_formats(placement, plan, config, numbered=numbered)
        labels = asked_image_labels(config, image, bundle.card.name)
    return Intended(choice, settled, plan, memory, image, wanted, objects, labels, config)


def wanted_formats(placement: Placement, plan: TilePlan, config: SegmentConfig, *, numbered: bool = False) -> list[str]:
    """Names of the formats with which the run is to end.

    Raises:
        ExportError: one that was asked for can't hold the run, which would be known when all is computed.
    """
    subject = Subject(
        str(config.image), placement, plan.mask.shape, config.probabilities, config.objects != OBJECTS_NONE
    )
    formats = chosen_formats(config.export, placement, probabilities=config.probabilities, numbered=numbered)
    for each in formats:
        each.expect(subject)
    return [each.name for each in formats]


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


def tile_memory(
    plan: TilePlan, bundle: Bundle, precision: str, *, lacks_data: bool = False, in_strips: bool = False
) -> TileMemory:
    """Memory of a worker for this plan, from the network's own graph; `in_strips`: large cores are computed so."""
    height, width = plan.read_shape
    bands = len(bundle.card.bands)
    itemsize = {"uint8": 1, "uint16": 2, "float32": 4}[bundle.card.dtype]
    rows = rows_at_once(bundle.module, bands, plan.read_shape, plan.stride, plan.halo.sides) if in_strips else height
    # Normalisation holds what the network sees next twice in float32.
    tile_bytes = width * bands * (height * itemsize + rows * 8)
    if lacks_data:  # a band that says where, packed and unpacked, and sums of it
        tile_bytes += height * width * (bands * itemsize + itemsize + 6)
    activations = activation_bytes(bundle.module, bands, (rows, width), precision)
    return TileMemory(tile_bytes, activations, IN_FLIGHT_PER_ACTOR, WORKER_FIXED_BYTES)


def image_card(
    config: SegmentConfig, choice: ViewChoice, seen: ImageSource, whole: ImageSource, bundle: Bundle
) -> ImageCard:
    """The card of an image; `seen` is the view of it that is segmented."""
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
