"""Rate at which scenes of several files are read, beside plain rasterio windows of the same files.

    python -m benchmarks scenes

writes `benchmarks/results/scenes.json`, its table and the sentence of `docs/scenes.md`. It needs an idle core, rasterio
with JP2OpenJPEG, about 250 MB of disk and a few minutes. Every side reads the same boxes of the same files once, one
after another, in a process of its own. Files are drawn, as large as is asked for, and in the page cache: what is
measured is decoding, laying on one grid and telling no data apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
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

from benchmarks.scene_rates import FOUR_BANDS, JPEG_2000, MOSAIC, READERS, SCENES, TWO_SIZES
from tiling.geometry import Box
from tiling.source import open_source

BOX_PX = 1024
TILE_PX = 512
_WHERE = Affine(10, 0, 500_000, 0, -10, 5_500_000)
_CRS = "EPSG:32632"

Read = Callable[[Box], object]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way of reading one scene: million values per second, of the wall and of the processors, and peak memory."""

    scene: str
    reader: str
    side_px: int
    bands: int
    mvalues_per_second: float
    mvalues_per_cpu_second: float
    peak_mb: float


def readings(folder: Path, side_px: int, names: Sequence[str], readers: Sequence[str]) -> Iterator[Reading]:
    """Read scenes that are drawn in a folder, each by the readers that are asked for."""
    known = scenes(folder, side_px)
    for name in names:
        place, files = known[name]
        with open_source(place) as source:
            whole, bands = source.levels[0].box, len(source.bands)
            if "overtile" in readers:
                yield measured(name, "overtile", whole, bands, lambda box, source=source: source.read_present(0, box))
        if "rasterio" in readers:
            with ExitStack() as stack:
                yield measured(name, "rasterio", whole, bands, by_rasterio(stack, files, whole))


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
    """The scenes by name: what overtile calls each, and the files of each band."""
    fine = [folder / f"b{band}.tif" for band in range(4)]
    coarse = [folder / f"c{band}.tif" for band in range(2)]
    parts = [folder / "m" / f"{row}{col}.tif" for row in range(3) for col in range(3)]
    named = {
        FOUR_BANDS: (listed(folder, fine), [[each] for each in fine]),
        TWO_SIZES: (listed(folder, [*fine[:2], *coarse]), [[each] for each in (*fine[:2], *coarse)]),
        MOSAIC: (folder / "m", [parts]),
        JPEG_2000: (folder / "band=j.jp2", [[folder / "j.jp2"]]),
    }
    if not (folder / f"{side_px}").is_file():
        draw(folder, side_px, fine, coarse, parts)
        (folder / f"{side_px}").touch()
    return named


def draw(folder: Path, side_px: int, fine: list[Path], coarse: list[Path], parts: list[Path]) -> None:
    """Draw the files of all scenes."""
    for band, path in enumerate(fine):
        write(path, drawn(side_px, band))
    half, third = drawn(side_px // 2, 9), side_px // 3
    for band, path in enumerate(coarse):
        write(path, half + band, _WHERE @ Affine.scale(2))
    for number, path in enumerate(parts):
        row, col = divmod(number, 3)
        write(path, drawn(third, row), _WHERE @ Affine.translation(col * third, row * third))
    tiles: dict[str, Any] = {"blockxsize": 1024, "blockysize": 1024, "quality": 100, "reversible": "YES"}
    profile: dict[str, Any] = {"driver": "JP2OpenJPEG", "count": 1, "dtype": "uint16", "crs": _CRS, **tiles}
    with rasterio.open(folder / "j.jp2", "w", height=side_px, width=side_px, transform=_WHERE, **profile) as file:
        file.write(drawn(side_px, 5), 1)


def listed(folder: Path, files: list[Path]) -> Path:
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
    """Print all readings as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=3072, help="pixels along each side of a scene")
    parser.add_argument("--folder", type=Path, help="where the files are drawn, and kept")
    parser.add_argument(
        "--scene", nargs="*", choices=SCENES, default=[*SCENES], metavar="SCENE", help=", ".join(SCENES)
    )
    parser.add_argument("--reader", nargs="*", choices=READERS, default=[*READERS])
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = asked.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        found = [asdict(each) for each in readings(folder, asked.side, asked.scene, asked.reader)]
    print(json.dumps({"readings": found}), flush=True)


if __name__ == "__main__":
    main()
