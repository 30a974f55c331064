"""Slides of any size, written in bounded memory: real tissue mirrored out, as JPEG tiles of 256 px.

    python -m benchmarks.slide 4096 slide.svs

The tissue is `../shared/data/slides/CMU-1-Small-Region.svs` where that is there, else the
immunohistochemistry photograph that comes with scikit-image. A mirrored image has no seams of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

TILE_PX = 256
JPEG_QUALITY = 85
MPP = 0.499
ROOT = Path(__file__).resolve().parents[1]
REAL_SLIDE = ROOT.parent / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"


def tissue() -> tuple[str, NDArray[np.uint8]]:
    """What slides are made of: its name and its pixels `(y, x, 3)`."""
    if REAL_SLIDE.is_file():
        return REAL_SLIDE.name, np.ascontiguousarray(tifffile.imread(REAL_SLIDE, key=0))
    from skimage import data

    return "ihc.png of scikit-image", np.ascontiguousarray(data.immunohistochemistry())


def mirrored(length: int, side_px: int) -> NDArray[np.intp]:
    """Indices that walk `0 … length-1` forth and back until there are `side_px` of them."""
    places = np.arange(side_px) % (2 * length)
    return np.where(places < length, places, 2 * length - 1 - places)


def write_slide(
    path: Path,
    side_px: int,
    pixels_YXC: NDArray[np.uint8] | None = None,
    *,
    described: bool = True,
    reduced: tuple[int, ...] = (),
) -> Path:
    """Write a square slide of `side_px`, one tile in memory at a time; a slide that is there already stays.

    Args:
        path: the file; `.svs` makes readers of vendor slides take it as what it says it is, an Aperio file.
        side_px: a multiple of 256, also divided by each of `reduced`.
        pixels_YXC: what to mirror out, instead of the tissue.
        described: as Aperio's scanners do; without that it is a plain TIFF.
        reduced: by how much each level of its pyramid is smaller; none by default, as the smallest slides have it.
    """
    if path.is_file():
        return path
    for factor in (1, *reduced):
        if side_px // factor < TILE_PX or side_px % (factor * TILE_PX):
            raise ValueError(
                f"a slide of {side_px} px over {factor} is not made of {TILE_PX} px tiles; give a multiple"
            )
    base = tissue()[1] if pixels_YXC is None else pixels_YXC
    partial = path.with_name(f".{path.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(partial) as tiff:
        for factor in (1, *reduced):
            side = side_px // factor
            per_centimetre = 10_000 / (MPP * factor)
            tiff.write(
                _tiles(base, side_px, factor),
                shape=(side, side, 3),
                dtype=np.uint8,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression="jpeg",
                compressionargs={"level": JPEG_QUALITY},
                resolution=(per_centimetre, per_centimetre),
                resolutionunit="CENTIMETER",
                description=_description(side_px, side) if described else None,
                metadata=None,
            )
    return partial.rename(path)


def _tiles(base_YXC: NDArray[np.uint8], side_px: int, factor: int) -> Iterator[NDArray[np.uint8]]:
    rows = mirrored(base_YXC.shape[0], side_px)[::factor]
    cols = mirrored(base_YXC.shape[1], side_px)[::factor]
    for y in range(0, len(rows), TILE_PX):
        for x in range(0, len(cols), TILE_PX):
            yield base_YXC[np.ix_(rows[y : y + TILE_PX], cols[x : x + TILE_PX])]


def _description(side_px: int, level_px: int) -> str:
    smaller = f" -> {level_px}x{level_px}" if level_px < side_px else ""
    return (
        f"Aperio Image Library v10.0.51\r\n"
        f"{side_px}x{side_px} [0,0 {side_px}x{side_px}]{smaller} ({TILE_PX}x{TILE_PX}) "
        f"JPEG/RGB Q={JPEG_QUALITY}|AppMag = 20|MPP = {MPP:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a slide of mirrored tissue.")
    parser.add_argument("side_px", type=int)
    parser.add_argument("path", type=Path)
    asked = parser.parse_args()
    write_slide(asked.path, asked.side_px)


if __name__ == "__main__":
    main()
