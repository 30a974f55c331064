"""Finished runs whose masks are drawn, not computed: what exports are measured on beside segmented slides.

python -m benchmarks.export_runs drawn runs/drawn --side 16384
python -m benchmarks.export_runs discs runs/discs --polygons 1000000
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from tiling.geometry import Halo
from tiling.plan import TilePlan
from tiling.runs.card import ClassCard, GeometryCard, ImageCard, MemoryCard, ModelRef, RunCard
from tiling.runs.ledger import STITCHED, TileRecord, TileState
from tiling.runs.run import Run

Labels = NDArray[np.uint8]
Rows = Callable[[int, int], Labels]
"""The labels of the rows from one to another."""

CORE_PX, SPACING_PX = 1024, 44
CELL_PX, RADII_PX = 50, (4, 20)
CLASSES = (("background", "#000000"), ("nucleus", "#e69f00"), ("stroma", "#56b4e9"))
CRS, CORNER_M, GSD_M = "EPSG:32617", (451_234.25, 3_991_234.75), 0.5


def tissue_labels(side_px: int) -> Rows:
    """Nuclei of all sizes, some of which touch, in and around regions that reach across the whole image."""
    random = np.random.default_rng(0)
    coarse = ndimage.gaussian_filter(random.random((-(-side_px // 64), -(-side_px // 64))), 3)
    regions = (coarse > np.median(coarse)).astype(np.uint8) * 2
    labels = regions.repeat(64, axis=0).repeat(64, axis=1)[:side_px, :side_px].copy()
    stamps = [_nucleus(random) for _ in range(256)]
    for y in range(0, side_px - 2 * SPACING_PX, SPACING_PX):
        for x in range(0, side_px - 2 * SPACING_PX, SPACING_PX):
            stamp = stamps[random.integers(256)]
            top, left = (at + int(random.integers(SPACING_PX // 2)) for at in (y, x))
            place = labels[top : top + stamp.shape[0], left : left + stamp.shape[1]]
            place[stamp] = 1
    return lambda y0, y1: labels[y0:y1]


def _nucleus(random: np.random.Generator) -> NDArray[np.bool_]:
    """A wobbly ellipse."""
    rows, cols = np.mgrid[-20:21, -20:21]
    angle = np.arctan2(rows, cols)
    wobble = sum(random.normal(0, 0.08) * np.cos(k * angle + random.uniform(0, 6.3)) for k in range(2, 6))
    radius = np.hypot(rows / random.uniform(8, 16), cols / random.uniform(8, 16))
    return radius < 1 + wobble


def disc_labels(count: int) -> tuple[int, Rows]:
    """As many discs of both classes, one per cell, none of which touch: the side, and the labels made as wanted."""
    across = math.isqrt(count - 1) + 1
    side_px = across * CELL_PX
    stamps = {radius: _disc(radius) for radius in range(RADII_PX[0], RADII_PX[1] + 1)}

    def rows(y0: int, y1: int) -> Labels:
        first, last = y0 // CELL_PX, -(-y1 // CELL_PX)
        cells = np.zeros(((last - first) * CELL_PX, side_px), np.uint8)
        for row in range(first, min(last, across)):
            _draw_row(cells[(row - first) * CELL_PX :][:CELL_PX], row, min(across, count - row * across), stamps)
        return cells[y0 - first * CELL_PX :][: y1 - y0]

    return side_px, rows


def _draw_row(cells: Labels, row: int, discs: int, stamps: dict[int, NDArray[np.bool_]]) -> None:
    """The discs of one row of cells, the same whenever they are drawn."""
    random = np.random.default_rng(row)
    for col in range(discs):
        radius = int(random.integers(RADII_PX[0], RADII_PX[1] + 1))
        top, left = random.integers(1, CELL_PX - 2 * radius - 1, 2)
        stamp = stamps[radius]
        place = cells[top : top + stamp.shape[0], col * CELL_PX + left :][:, : stamp.shape[1]]
        place[stamp] = 1 + (row + col) % 2


def _disc(radius_px: int) -> NDArray[np.bool_]:
    rows, cols = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    return np.hypot(rows, cols) < radius_px + 0.3


def make(folder: Path, side_px: int, rows: Rows) -> Run:
    """A finished run over an image that holds a place on the earth and no pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "image.tif"
    transform = rasterio.Affine(GSD_M, 0, CORNER_M[0], 0, -GSD_M, CORNER_M[1])
    profile: dict[str, Any] = {"driver": "GTiff", "height": side_px, "width": side_px, "count": 1, "dtype": "uint8"}
    with rasterio.open(image, "w", **profile, crs=CRS, transform=transform, tiled=True, sparse_ok=True):
        pass
    return make_over(image, ("1",), folder / "run", side_px, rows)


def make_over(image: Path, bands: tuple[str, ...], out: Path, side_px: int, rows: Rows) -> Run:
    """The same over an image that is there, of 8-bit bands; made one row of tiles at a time."""
    plan = TilePlan((side_px, side_px), CORE_PX, (16, 16), Halo(96, 96, 96, 96))
    run = Run.create_or_resume(out, _card(image, bands, plan))
    run.create_mask()
    mask, band, band_y = run.open_mask(), np.empty((0, 0), np.uint8), -1
    for tile in run.plan.tiles():
        y, x = tile.valid.slices
        if tile.valid.y0 != band_y:
            band, band_y = rows(y.start, y.stop), tile.valid.y0
        digest = mask.write(tile, np.ascontiguousarray(band[:, x]))
        run.ledger.append(TileRecord(tile.index, TileState.DONE, 1, digest))
    run.ledger.flush()
    mask.build_pyramid()
    run.ledger.announce(STITCHED, {"tiles": plan.count})
    return run


def _card(image: Path, bands: tuple[str, ...], plan: TilePlan) -> RunCard:
    classes = tuple(ClassCard(name=name, color=color) for name, color in CLASSES)
    described = ImageCard(
        path=str(image.resolve()),
        fingerprint="drawn",
        format="geotiff",
        level=0,
        extent=plan.extent,
        bands=bands,
        dtype="uint8",
        pixel_size=(GSD_M, GSD_M, "m"),
    )
    return RunCard(
        created="2026-01-01T00:00:00+00:00",
        image=described,
        model=ModelRef(reference="drawn", name="drawn", digest="drawn", classes=classes),
        geometry=GeometryCard.of(plan),
        precision="float32",
        tta="none",
        approximate=False,
        maths_version=1,
        foreground="none",
        memory=MemoryCard(worker_bytes=0, workers=1),
        versions={},
        notes={},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a finished run with a drawn mask.")
    parser.add_argument("what", choices=("drawn", "discs"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=16_384)
    parser.add_argument("--polygons", type=int, default=1_000_000)
    given = parser.parse_args()
    side_px, rows = (given.side, tissue_labels(given.side)) if given.what == "drawn" else disc_labels(given.polygons)
    make(given.folder, side_px, rows)
    print(json.dumps({"side_px": side_px}))


if __name__ == "__main__":
    main()
