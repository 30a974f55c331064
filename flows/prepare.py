"""From what was asked to a run folder with a plan: everything that can be refused is refused here."""

from __future__ import annotations

import datetime as dt
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from flows.check import check_fit
from flows.config import SegmentConfig
from flows.pool import IN_FLIGHT_PER_ACTOR
from tiling.card import ClassCard, GeometryCard, ImageCard, MemoryCard, ModelRef, RunCard
from tiling.foreground import draw_skipped, find_foreground
from tiling.geometry import Halo
from tiling.ledger import TileRecord, TileState
from tiling.plan import TileMemory, TilePlan
from tiling.run import Run
from tiling.source import ImageSource, open_source
from tiling.stitching import BACKGROUND
from unet_core.bounds import Footprint, footprint
from unet_core.bundle import Bundle, load_bundle
from unet_core.memory import activation_bytes
from unet_core.predictor import MATHS_VERSION

DEFAULT_CORE_PX = 512
WORKER_FIXED_BYTES = 600 * 2**20  # interpreter, torch, zarr: measured, see docs/memory.md
VERSIONS = ("overtile", "torch", "zarr", "tifffile", "imagecodecs", "numpy", "ray", "prefect")


def prepare(config: SegmentConfig, workers: int) -> Run:
    """Open or make the run folder for what was asked.

    Raises:
        SourceError: the image can't be opened, or the model doesn't fit it.
        PlanError: the geometry is inexact or needs more memory than there is.
        RunError: the folder holds a different run.
    """
    with open_source(config.image) as source:
        bundle = load_bundle(config.model)
        check_fit(source, bundle.card, config.level)
        found = footprint(bundle.module, len(bundle.card.bands))
        plan = make_plan(source, config, found)
        memory = tile_memory(plan, bundle, config.precision)
        memory.check(workers, psutil.virtual_memory().available, plan)
        card = make_card(config, source, bundle, plan, MemoryCard(worker_bytes=memory.worker_bytes, workers=workers))
        run = Run.create_or_resume(config.out, card)
        run.create_mask()
        if run.ledger.fold().last_event("planned") is None:
            _skip_background(run, source)
    return run


def make_plan(source: ImageSource, config: SegmentConfig, found: Footprint) -> TilePlan:
    """Place the tiles: the model's footprint decides the reads, the core is asked for or chosen."""
    level = source.levels[config.level]
    stride_px = max(found.stride)
    core_px = config.core or DEFAULT_CORE_PX - DEFAULT_CORE_PX % stride_px
    halo = Halo(found.halo.top, found.halo.bottom, found.halo.left, found.halo.right)
    return TilePlan((level.height, level.width), core_px, found.stride, halo)


def tile_memory(plan: TilePlan, bundle: Bundle, precision: str) -> TileMemory:
    """What a worker takes for this plan, from the network's own graph."""
    height, width = plan.read_shape
    bands = len(bundle.card.bands)
    itemsize = {"uint8": 1, "uint16": 2, "float32": 4}[bundle.card.dtype]
    # Normalisation holds the tile twice in float32 before the network sees it.
    tile_bytes = height * width * bands * (itemsize + 8)
    activations = activation_bytes(bundle.module, bands, plan.read_shape, precision)
    return TileMemory(tile_bytes, activations, IN_FLIGHT_PER_ACTOR, WORKER_FIXED_BYTES)


def make_card(
    config: SegmentConfig, source: ImageSource, bundle: Bundle, plan: TilePlan, memory: MemoryCard
) -> RunCard:
    """The run's card."""
    level = source.levels[config.level]
    size = level.pixel_size
    halo = plan.halo
    model = bundle.card
    return RunCard(
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        image=ImageCard(
            path=str(config.image.resolve()),
            fingerprint=source.fingerprint(),
            format=source.format,
            level=config.level,
            extent=plan.extent,
            bands=source.bands,
            dtype=str(source.dtype),
            pixel_size=(size.y, size.x, size.unit) if size else None,
        ),
        model=ModelRef(
            reference=_reference(config.model),
            name=model.name,
            digest=bundle.digest,
            classes=tuple(ClassCard(name=item.name, color=item.color) for item in model.classes),
        ),
        geometry=GeometryCard(
            core_px=plan.core_px,
            stride=plan.stride,
            halo=(halo.top, halo.bottom, halo.left, halo.right),
            read=plan.read_shape,
            grid=plan.shape,
        ),
        precision=config.precision,
        maths_version=MATHS_VERSION,
        foreground=config.foreground,
        memory=memory,
        versions={"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        notes={},
    )


def _reference(model: str) -> str:
    """A folder's absolute path, so that the run finds its model from anywhere; a shipped name as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _skip_background(run: Run, source: ImageSource) -> None:
    """Write background where nothing is worth computing, and a picture of where that is."""
    image = run.card.image
    found = find_foreground(source, image.level, run.card.foreground)
    skipped = found.skipped(run.plan)
    mask = run.open_mask()
    for tile in skipped:
        digest = mask.fill(tile, BACKGROUND)
        run.ledger.append(TileRecord(tile.index, TileState.SKIPPED, digest=digest))
    draw_skipped(source, image.level, run.plan, skipped, run.exports / "foreground.png")
    run.ledger.announce("planned", {"skipped": len(skipped), "foreground": found.reason})
