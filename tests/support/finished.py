"""Finished runs of any image and any labels, without a network: what exporters are given."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flows.run.steps import stitch
from tiling.geometry import IMAGE_GRID, Halo, OutputGrid
from tiling.objects.build import build_objects
from tiling.objects.image import ObjectImage
from tiling.objects.record import ask_for_objects
from tiling.objects.rule import builtin_rule
from tiling.objects.spec import ObjectSpec
from tiling.plan import TilePlan
from tiling.runs.card import ClassCard, GeometryCard, ImageCard, MemoryCard, ModelRef, RunCard
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run
from tiling.source import open_source
from tiling.storage.place import Place

CLASSES = (("background", "#000000"), ("nucleus", "#e69f00"), ("gland & <duct>", "#56b4e9"))


def finished_run(
    image: Place,
    out: Place,
    labels: NDArray[np.uint8] | None = None,
    *,
    core: int = 128,
    level: int = 0,
    grid: OutputGrid = IMAGE_GRID,
    failed: Collection[tuple[int, int]] = (),
    skipped: Collection[tuple[int, int]] = (),
    probabilities: bool = False,
) -> Run:
    """A run that is done; its labels are blobs of both classes unless they are given."""
    with open_source(image) as source:
        seen, bands, kind, name = source.levels[level], source.bands, str(source.dtype), source.format
        fingerprint = source.fingerprint()
    plan = TilePlan((seen.height, seen.width), core, (16, 16), Halo(32, 32, 32, 32), grid)
    size = seen.pixel_size
    classes = tuple(ClassCard(name=name, color=color) for name, color in CLASSES)
    card = RunCard(
        created="2026-01-01T00:00:00+00:00",
        image=ImageCard(
            path=str(image),
            fingerprint=fingerprint,
            format=name,
            level=level,
            extent=plan.extent,
            bands=bands,
            dtype=kind,
            pixel_size=(size.y, size.x, size.unit) if size else None,
        ),
        model=ModelRef(reference="none", name="none", digest="none", classes=classes),
        geometry=GeometryCard.of(plan),
        precision="float32",
        tta="none",
        probabilities=classes[1:] if probabilities else (),
        approximate=False,
        maths_version=1,
        foreground="none",
        memory=MemoryCard(worker_bytes=0, workers=1),
        versions={},
        notes={},
    )
    run = Run.create_or_resume(out, card)
    run.create_mask()
    run.create_probabilities()
    write_labels(run, blobs(plan.mask.shape) if labels is None else labels, failed=failed, skipped=skipped)
    return run


def write_labels(
    run: Run,
    labels: NDArray[np.uint8],
    *,
    failed: Collection[tuple[int, int]] = (),
    skipped: Collection[tuple[int, int]] = (),
) -> None:
    """Write every tile as a driver would, and build the pyramid."""
    mask, kept = run.open_mask(), run.open_probabilities()
    for tile in run.plan.tiles():
        place = tile.row, tile.col
        if place in failed:
            record = TileRecord(tile.index, TileState.FAILED, 1, reason="it failed on purpose")
            mask.fill(tile, 255)
        elif place in skipped:
            record = TileRecord(tile.index, TileState.SKIPPED, digest=mask.fill(tile, 0))
        else:
            part = np.ascontiguousarray(labels[tile.valid.slices])
            found = kept.write(tile, np.stack([part * 100, 255 - part * 100])) if kept is not None else None
            record = TileRecord(tile.index, TileState.DONE, 1, mask.write(tile, part), probabilities=found)
        run.ledger.append(record)
    run.ledger.flush()
    stitch(run)


def numbered(run: Run, spec: ObjectSpec | None = None) -> ObjectImage:
    """Number a run's objects; by default the areas of its classes."""
    state, spec = run.ledger.fold(held=True), spec or ObjectSpec()
    ask_for_objects(run, state, spec)
    return build_objects(run, state, spec, builtin_rule(spec))


def blobs(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Objects of two classes, with holes, some of them longer than any tile."""
    random = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(random.random(shape), 2)
    coarse = ndimage.gaussian_filter(random.random(shape), 9)
    labels = (fine > np.quantile(fine, 0.7)).astype(np.uint8)
    labels[coarse > np.quantile(coarse, 0.75)] = 2
    return labels


def labels_of(run: Run, level: int = 0) -> NDArray[np.uint8]:
    return np.asarray(run.open_mask(read_only=True).levels[level][:])
