"""A run folder whose tiles are staged from pixels in memory: what a worker needs, without a file to segment."""

from __future__ import annotations

import datetime as dt
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.worker.tile_worker import TileResult, TileWorker
from tiling.geometry import Box, Halo, OutputGrid
from tiling.plan import Tile, TilePlan
from tiling.runs.card import ClassCard, GeometryCard, ImageCard, MemoryCard, ModelRef, RunCard
from tiling.runs.run import Run
from unet_core.bounds import Edges, footprint
from unet_core.bundles.bundle import Bundle
from unet_core.inference.predictor import MATHS_VERSION, OutputRegion, Precision

Pixels = NDArray[np.uint8]


def picture(image: Path | None, side_px: int) -> tuple[Pixels, str]:
    """A square RGB image, mirrored up to the side where it is smaller, and what it shows."""
    if image is not None:
        pixels, name = np.load(image, allow_pickle=False), image.name
    else:
        try:
            from skimage.data import immunohistochemistry

            pixels, name = immunohistochemistry(), "stained tissue (scikit-image)"
        except ImportError:
            pixels, name = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8), "noise"
    pixels = pixels[:side_px, :side_px]
    margins = ((0, side_px - pixels.shape[0]), (0, side_px - pixels.shape[1]), (0, 0))
    return np.pad(pixels, margins, mode="symmetric"), name


def plan_of(bundle: Bundle, extent: tuple[int, int], core_px: int) -> TilePlan:
    """The tiles of an image under the network's own footprint."""
    found = footprint(bundle.module, len(bundle.card.bands))
    grid = OutputGrid(found.scale, found.offset, Halo(*found.context.sides))
    return TilePlan(extent, core_px, found.stride, Halo(*found.halo.sides), grid)


def region_of(plan: TilePlan, tile: Tile) -> OutputRegion:
    """What is wanted of a tile's read, as the worker asks for it."""
    need, sides = plan.need(tile), plan.edges(tile)
    edges = Edges(sides.top, sides.bottom, sides.left, sides.right)
    return OutputRegion((need.y0, need.x0, need.y1, need.x1), edges)


def one_of_each_kind(plan: TilePlan) -> list[int]:
    """The first tile of every kind: what a worker builds, compiles and captures once."""
    first: dict[OutputRegion, int] = {}
    for tile in plan.tiles():
        first.setdefault(region_of(plan, tile), tile.index)
    return list(first.values())


def new_run(folder: Path, bundle: Bundle, reference: str, plan: TilePlan, precision: Precision) -> Run:
    """An empty run: its mask holds 'not predicted' everywhere."""
    card = bundle.card
    run = Run.create_or_resume(
        folder,
        RunCard(
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            image=ImageCard(
                path="memory",
                fingerprint="memory",
                format="memory",
                level=0,
                extent=plan.extent,
                bands=card.bands,
                dtype=card.dtype,
                pixel_size=None,
            ),
            model=ModelRef(
                reference=reference,
                name=card.name,
                digest=bundle.digest,
                classes=tuple(ClassCard(name=item.name, color=item.color) for item in card.classes),
            ),
            geometry=GeometryCard.of(plan),
            precision=precision,
            tta="none",
            approximate=False,
            maths_version=MATHS_VERSION,
            foreground="none",
            memory=MemoryCard(worker_bytes=0, workers=1),
            versions={"python": platform.python_version()},
            notes={},
        ),
    )
    run.create_mask()
    run.create_staged()
    return run


def stage(run: Run, indices: Iterable[int], pixels: Callable[[Box], Pixels], threads: int) -> None:
    """Stage tiles, each from what `pixels` gives for its read."""
    staged = run.open_staged()

    def one(index: int) -> None:
        staged.write(index, pixels(run.plan.tile(index).read))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, indices))


def process(worker: TileWorker, run: Run, indices: Iterable[int], threads: int) -> tuple[list[TileResult], float]:
    """Walk tiles in so many threads; their results, and the seconds from the first read to the last label on disk."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(lambda index: worker.process(run.path, index, staged=True), indices))
    seconds = time.perf_counter() - start
    failed = [result for result in results if result.reason is not None]
    if failed:
        raise SystemExit(f"{len(failed)} tiles failed, the first one (tile {failed[0].tile}) with {failed[0].reason}")
    return results, seconds
