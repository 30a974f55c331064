"""What reading a scene of several files takes beside plain rasterio windows of the same files: pixels per second.

Every side reads the same boxes of the same files once, one after another, in one process. Files are drawn, as large as
is asked for, and in the page cache: what is measured is decoding, laying on one grid and telling no data apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from tiling.geometry import Box
from tiling.source import open_source

BOX_PX = 1024
TILE_PX = 512
_WHERE = Affine(10, 0, 500_000, 0, -10, 5_500_000)
_CRS = "EPSG:32632"

Read = Callable[[Box], object]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way of reading one scene: million values per second, of the wall's and of the processors' time."""

    scene: str
    reader: str
    side_px: int
    bands: int
    mvalues_per_second: float
    mvalues_per_cpu_second: float
    peak_mb: float


def readings(folder: Path, side_px: int) -> Iterator[Reading]:
    """Read four scenes both ways."""
    for scene, (name, files) in scenes(folder, side_px).items():
        with open_source(name) as source:
            whole, bands = source.levels[0].box, len(source.bands)
            yield measured(scene, "overtile", whole, bands, lambda box, source=source: source.read_present(0, box))
        with ExitStack() as stack:
            yield measured(scene, "rasterio", whole, bands, by_rasterio(stack, files, whole))


def measured(scene: str, reader: str, whole: Box, bands: int, read: Read) -> Reading:
    """Read every box of a scene once, after one that prepares what is prepared once."""
    read(Box(0, 0, min(8, whole.height), min(8, whole.width)))
    wall, cpu = time.perf_counter(), time.process_time()
    for y in range(0, whole.height, BOX_PX):
        for x in range(0, whole.width, BOX_PX):
            read(Box(y, x, min(y + BOX_PX, whole.height), min(x + BOX_PX, whole.width)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    values = whole.area * bands / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Reading(scene, reader, whole.height, bands, values / wall, values / cpu, peak)


def by_rasterio(stack: ExitStack, files: list[list[Path]], whole: Box) -> Read:
    """Plain windows of each band's files, warped to the grid by GDAL where their pixels are others."""
    opened: list[list[Any]] = []
    for band in files:
        opened.append([])
        for path in band:
            file: Any = stack.enter_context(rasterio.open(path))
            if file.res != (_WHERE.a, -_WHERE.e):
                grid = {"crs": _CRS, "transform": _WHERE, "width": whole.width, "height": whole.height}
                file = stack.enter_context(WarpedVRT(file, resampling=Resampling.bilinear, **grid))
            opened[-1].append(file)

    def read(box: Box) -> NDArray[Any]:
        out = np.zeros((*box.shape, len(opened)), np.uint16)
        for band, parts in enumerate(opened):
            for file in parts:
                left, top = ~_WHERE @ (file.transform.c, file.transform.f)
                place = Box(0, 0, file.height, file.width).translate(round(top), round(left)).intersect(box)
                if not place.is_empty:
                    own = place.translate(-round(top), -round(left))
                    pixels = file.read(1, window=((own.y0, own.y1), (own.x0, own.x1)))
                    out[(*place.translate(-box.y0, -box.x0).slices, band)] = pixels
        return out

    return read


def scenes(folder: Path, side_px: int) -> dict[str, tuple[Path, list[list[Path]]]]:
    """Four scenes by name: what overtile calls each, and the files of each band."""
    fine = [write(folder / f"b{band}.tif", drawn(side_px, band)) for band in range(4)]
    half = drawn(side_px // 2, 9)
    coarse = [write(folder / f"c{band}.tif", half + band, _WHERE @ Affine.scale(2)) for band in range(2)]
    third = side_px // 3
    parts = [
        write(
            folder / "m" / f"{row}{col}.tif", drawn(third, row), _WHERE @ Affine.translation(col * third, row * third)
        )
        for row in range(3)
        for col in range(3)
    ]
    jp2 = folder / "j.jp2"
    tiles: dict[str, Any] = {"blockxsize": 1024, "blockysize": 1024, "quality": 100, "reversible": "YES"}
    profile: dict[str, Any] = {"driver": "JP2OpenJPEG", "count": 1, "dtype": "uint16", "crs": _CRS, **tiles}
    with rasterio.open(jp2, "w", height=side_px, width=side_px, transform=_WHERE, **profile) as file:
        file.write(drawn(side_px, 5), 1)
    bare = folder / "band=j.jp2"
    return {
        "four bands of one grid": (named(folder, [*fine]), [[each] for each in fine]),
        "two bands, and two of half the resolution": (
            named(folder, [*fine[:2], *coarse]),
            [[each] for each in (*fine[:2], *coarse)],
        ),
        "a mosaic of nine files": (folder / "m", [parts]),
        "a band of JPEG 2000 in tiles": (bare, [[jp2]]),
    }


def named(folder: Path, files: list[Path]) -> Path:
    return folder / ",".join(f"{file.stem}={file.name}" for file in files)


def drawn(side_px: int, seed: int) -> NDArray[np.uint16]:
    """Waves with noise, which compress about as a scene's band does."""
    random = np.random.default_rng(seed)
    y, x = np.ogrid[:side_px, :side_px]
    waves = np.sin(y / (37 + seed)) + np.cos(x / 53)
    return (1500 + 500 * waves + random.integers(0, 32, (side_px, side_px))).astype(np.uint16)


def write(path: Path, pixels: NDArray[np.uint16], where: Affine = _WHERE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": TILE_PX, "blockysize": TILE_PX, "compress": "deflate"}
    height, width = pixels.shape
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "dtype": "uint16", "nodata": 0, **tiles}
    with rasterio.open(path, "w", height=height, width=width, crs=_CRS, transform=where, **profile) as file:
        file.write(pixels, 1)
    return path


def main() -> None:
    """Print each reading, and of each scene how much of rasterio's speed overtile reaches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=3072, help="pixels along each side of a scene")
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        found = list(readings(Path(place), asked.side))
    for ours, theirs in zip(found[::2], found[1::2], strict=True):
        ratio = round(ours.mvalues_per_cpu_second / theirs.mvalues_per_cpu_second, 3)
        print(json.dumps({"overtile": asdict(ours), "rasterio": asdict(theirs), "ratio": ratio}), flush=True)


if __name__ == "__main__":
    main()
