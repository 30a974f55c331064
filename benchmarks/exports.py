"""Exports of a mask with more than 100,000 objects: seconds and peak memory of each format, and the way back.

python -m benchmarks.exports --out .benchmarks/work/exports --side 16384
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
from numpy.typing import NDArray
from rasterio import features
from scipy import ndimage

from tiling.card import ClassCard, GeometryCard, ImageCard, MemoryCard, ModelRef, RunCard
from tiling.export.exporting import export_run
from tiling.export.formats import FORMATS
from tiling.geometry import Halo
from tiling.ledger import STITCHED, TileRecord, TileState
from tiling.plan import TilePlan
from tiling.run import Run

Labels = NDArray[np.uint8]
Figures = dict[str, Any]

CORE_PX, SPACING_PX = 1024, 44
CLASSES = (("background", "#000000"), ("nucleus", "#e69f00"), ("stroma", "#56b4e9"))
FORMATS_MEASURED = tuple(name for name in FORMATS if not name.startswith("probabilities"))


def synthetic(side_px: int) -> Labels:
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
    return labels


def _nucleus(random: np.random.Generator) -> NDArray[np.bool_]:
    """A wobbly ellipse."""
    rows, cols = np.mgrid[-20:21, -20:21]
    angle = np.arctan2(rows, cols)
    wobble = sum(random.normal(0, 0.08) * np.cos(k * angle + random.uniform(0, 6.3)) for k in range(2, 6))
    radius = np.hypot(rows / random.uniform(8, 16), cols / random.uniform(8, 16))
    return radius < 1 + wobble


def make(folder: Path, side_px: int) -> Run:
    """A finished run over an image that holds no pixels, only a place on the earth."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "image.tif"
    transform = rasterio.Affine(0.5, 0, 451_234.25, 0, -0.5, 3_991_234.75)
    profile: Figures = {"driver": "GTiff", "height": side_px, "width": side_px, "count": 1, "dtype": "uint8"}
    with rasterio.open(image, "w", **profile, crs="EPSG:32617", transform=transform, tiled=True, sparse_ok=True):
        pass
    plan = TilePlan((side_px, side_px), CORE_PX, (16, 16), Halo(96, 96, 96, 96))
    classes = tuple(ClassCard(name=name, color=color) for name, color in CLASSES)
    described = ImageCard(
        path=str(image),
        fingerprint="synthetic",
        format="geotiff",
        level=0,
        extent=plan.extent,
        bands=("1",),
        dtype="uint8",
        pixel_size=(0.5, 0.5, "m"),
    )
    card = RunCard(
        created="2026-01-01T00:00:00+00:00",
        image=described,
        model=ModelRef(reference="synthetic", name="synthetic", digest="synthetic", classes=classes),
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
    run = Run.create_or_resume(folder / "run", card)
    run.create_mask()
    mask, labels = run.open_mask(), synthetic(side_px)
    for tile in plan.tiles():
        digest = mask.write(tile, np.ascontiguousarray(labels[tile.valid.slices]))
        run.ledger.append(TileRecord(tile.index, TileState.DONE, 1, digest))
    run.ledger.flush()
    mask.build_pyramid()
    run.ledger.announce(STITCHED, {"tiles": plan.count})
    return run


def export(run: Run, names: Sequence[str]) -> Figures:
    """Export to some formats at once; the seconds, and the size of what was written."""
    rested = psutil.Process().memory_info().rss
    start = time.perf_counter()
    with run.open_source() as source:
        export_run(run, source, ",".join(names), again=True)
    seconds = time.perf_counter() - start
    files = [run.exports / file for name in names for file in FORMATS[name].files]
    size = sum(Path(str(file)).stat().st_size for file in files)
    return {"formats": [*names], "seconds": seconds, "bytes": size, "rested_bytes": rested}


def read_back(run: Run) -> Figures:
    """Rasterise the GeoPackage and QuPath's file, and count the pixels that differ from the mask."""
    import pyogrio
    import shapely

    labels = np.asarray(run.open_mask(read_only=True).levels[0][:])
    with run.open_source() as source:
        assert source.georeference is not None
        assert source.georeference.affine is not None
        transform = rasterio.Affine(*source.georeference.affine)
    _, table = pyogrio.read_arrow(str(run.exports / "objects.gpkg"))
    geometries = shapely.from_wkb(table.column("geometry").to_pylist())
    pairs = zip(geometries, table.column("label").to_pylist(), strict=True)
    burnt = features.rasterize(pairs, labels.shape, transform=transform, dtype="uint8")
    found = {"objects": table.num_rows, "geopackage_differing": int(np.count_nonzero(burnt != labels))}
    del geometries, table
    numbers = {item.name: label for label, item in enumerate(run.classes)}
    collected = json.loads(Path(str(run.exports / "qupath.geojson")).read_bytes())["features"]
    pairs = ((each["geometry"], numbers[each["properties"]["classification"]["name"]]) for each in collected)
    burnt = features.rasterize(pairs, labels.shape, dtype="uint8")
    return {**found, "qupath_differing": int(np.count_nonzero(burnt != labels)), "pixels": labels.size}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure exports.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=16_384)
    parser.add_argument("--formats", nargs="*", default=[], help="export to these")
    parser.add_argument("--check", action="store_true", help="read back what was exported")
    given = parser.parse_args()
    if not (given.out / "run").exists():
        make(given.out, given.side)
    figures: Figures = {"side_px": given.side}
    if given.formats:
        figures |= export(Run.open(given.out / "run"), given.formats)
    if given.check:
        figures |= read_back(Run.open(given.out / "run"))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
