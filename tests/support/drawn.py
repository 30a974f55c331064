"""A run whose labels are drawn, not computed: everything that a person looks at, without a network, Ray or Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cli import tissue
from numpy.typing import NDArray
from PIL import Image

from tiling.export.overlay import write_overlay
from tiling.geometry import Halo
from tiling.plan import TilePlan
from tiling.runs.card import ClassCard, GeometryCard, ImageCard, MemoryCard, ModelRef, RunCard
from tiling.runs.ledger import STITCHED, TileRecord, TileState
from tiling.runs.run import Run
from tiling.source import open_source
from unet_core.bundles.card import bundle_digest

Place = tuple[int, int]
CREATED = "2026-03-01T20:00:00+00:00"
BEGUN = 1_772_395_200.0  # the same moment
NUCLEUS = "#56b4e9"


def draw_run(
    folder: Path,
    *,
    height: int = 384,
    width: int = 512,
    failed: Mapping[Place, str] | None = None,
    skipped: tuple[Place, ...] = (),
    pending: tuple[Place, ...] = (),
    classes: tuple[tuple[str, str], ...] = (("background", "#000000"), ("nucleus", NUCLEUS)),
    image: str = "tissue.png",
    core: int = 128,
    picture: NDArray[np.uint8] | None = None,
    labels: NDArray[np.uint8] | None = None,
) -> Run:
    """A run of the `nuclei` model over real tissue, whose done tiles hold `labels_of` their place.

    With `picture` it is of that image instead, with `labels` its mask holds these; both are of `height` x `width`.

    Its card is a real one: `overtile rerun` computes its failed tiles.
    """
    path = folder.parent / image
    Image.fromarray(tissue(height, width) if picture is None else picture).save(path)
    plan = TilePlan((height, width), core, (16, 16), Halo(94, 94, 94, 94))
    run = Run.create_or_resume(folder, _card(path, plan, classes))
    mask, left_out = run.create_mask(), {*(failed or {}), *skipped, *pending}
    for tile in plan.tiles():
        place = tile.row, tile.col
        if place not in left_out:
            place_of = np.s_[tile.valid.y0 : tile.valid.y1, tile.valid.x0 : tile.valid.x1]
            drawn = labels_of(tile.valid.shape, len(classes)) if labels is None else labels[place_of]
            run.ledger.append(_record(tile.index, TileState.DONE, digest=mask.write(tile, drawn)))
        elif place in skipped:
            run.ledger.append(_record(tile.index, TileState.SKIPPED, digest=mask.fill(tile, 0)))
        elif place not in pending:
            run.ledger.append(_record(tile.index, TileState.FAILED, reason=(failed or {})[place]))
    run.ledger.announce("inferred", {"workers": 2, "stagers": 1, "seconds": 8.0})
    mask.build_pyramid()
    run.ledger.announce(STITCHED, {"tiles": plan.count - len(left_out)})
    with run.open_source() as source:
        write_overlay(run, source, [plan.tile(index) for index in run.ledger.fold().failed])
    return run


def labels_of(shape: tuple[int, int], classes: int) -> NDArray[np.uint8]:
    """Squares of 32 px, one label after the other."""
    rows, cols = np.indices(shape) // 32
    return ((rows + cols) % classes).astype(np.uint8)


def _record(tile: int, state: TileState, *, digest: str | None = None, reason: str | None = None) -> TileRecord:
    seconds = {"stage": 0.2, "read": 0.05, "compute": 1.0, "write": 0.1} if digest else {}
    pixels = 128 * 128 if state is TileState.DONE else 0
    return TileRecord(tile, state, 1, digest, reason, seconds=seconds, pixels=pixels, time=BEGUN + 60 + tile)


def _card(image: Path, plan: TilePlan, classes: tuple[tuple[str, str], ...]) -> RunCard:
    with open_source(image) as source:
        described = ImageCard(
            path=str(image),
            fingerprint=source.fingerprint(),
            format=source.format,
            level=0,
            extent=plan.extent,
            bands=source.bands,
            dtype=str(source.dtype),
            pixel_size=(0.5, 0.5, "um"),
        )
    return RunCard(
        created=CREATED,
        image=described,
        model=ModelRef(
            reference="nuclei",
            name="nuclei",
            digest=bundle_digest("nuclei"),
            classes=tuple(ClassCard(name=name, color=color) for name, color in classes),
        ),
        geometry=GeometryCard.of(plan),
        precision="float32",
        tta="none",
        approximate=False,
        maths_version=1,
        foreground="none",
        memory=MemoryCard(worker_bytes=2**30, workers=2),
        versions={"overtile": "0.1.0", "python": "3.11.2"},
        notes={"precision": "float32, as asked"},
    )
