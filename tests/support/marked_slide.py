"""A slide with tissue and pens across the rows at which parts of it begin, and its spoilt copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cli import tissue
from numpy.typing import NDArray
from PIL import Image

SHAPE = (4500, 1490)
MICROSCOPE: dict[str, Any] = {"resolution": (20000.0, 20000.0), "resolutionunit": "CENTIMETER"}


def slide_pixels() -> NDArray[np.uint8]:
    """Glass with tissue across the rows at which parts and squares begin, and pens that are no tissue."""
    random = np.random.default_rng(0)
    pixels = random.integers(236, 246, (*SHAPE, 3)).astype(np.uint8)
    pixels[900:1300, 200:700] = tissue(400, 500)
    pixels[3070:3075, 1400:] = tissue(5, 90)
    for top, mark in ((0, (15, 15, 18)), (2000, (30, 60, 170)), (4090, (30, 150, 90))):
        pixels[top : top + 120, 900:1400] = random.normal(mark, 1, (120, 500, 3)).clip(0, 255)
    pixels[2100:2110, 950:960] = tissue(10, 10)
    return pixels


def write_marked(path: Path, *, levels: tuple[int, ...] = (), alpha: bool = False, tile: int = 256) -> Path:
    pixels = slide_pixels()
    more: dict[str, Any] = {"extrasamples": ["unassalpha"]} if alpha else {}
    if alpha:
        held = np.full((*SHAPE, 1), 255, np.uint8)
        held[1000:2600, :400] = 0
        pixels = np.concatenate([pixels, held], axis=-1)
    shape: dict[str, Any] = {"photometric": "rgb", "tile": (tile, tile), "metadata": None, "compression": "zlib"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=len(levels), **shape, **MICROSCOPE, **more)
        for factor in levels:
            size = -(-SHAPE[1] // factor), -(-SHAPE[0] // factor)
            coarse = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
            tiff.write(coarse, subfiletype=1, **shape, **more)
    return path


def damage(path: Path, tile_px: int = 256) -> Path:
    """Spoil tiles of its finest level: some across which parts are cut, and the last."""
    content, across = bytearray(path.read_bytes()), -(-SHAPE[1] // tile_px)
    with tifffile.TiffFile(path) as tiff:
        offsets, counts = tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts
    for number in (3, 4 * across + 1, 8 * across - 1, len(offsets) - 1):
        content[offsets[number] : offsets[number] + counts[number]] = b"\xff" * counts[number]
    path.write_bytes(content)
    return path
