"""Oracle of an image's bands, computed apart from `tiling`: pages by tifffile, colours by the TIFF standard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import ImageSource, open_source

Pixels = npt.NDArray[Any]
imwrite: Any = tifffile.imwrite  # options come from tables, whose values have many types

SECONDS = 10.0  # of computing: the longest that any file may take, however busy the machine is

_MINISWHITE, _PALETTE = 0, 3
_SPREAD = {1: 255, 2: 85, 4: 17}


HEIGHT, WIDTH = 150, 211  # no multiple of any tile or strip


def picture(bands: int = 3, dtype: str = "uint8", height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Smooth colours with some noise, different in every pixel's neighbourhood."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, bands))
    planes = np.stack([(y * (i + 1) + x * (3 - i % 3)) % 200 for i in range(bands)], axis=-1) + noise
    pixels = planes.astype(dtype) if dtype != "float32" else (planes / 7).astype(dtype)
    return pixels[..., 0] if bands == 1 else pixels


def write(path: Path, pixels: Pixels, **options: Any) -> Path:
    photometric = "rgb" if 3 in {pixels.shape[0], pixels.shape[-1]} and pixels.ndim == 3 else "minisblack"
    imwrite(path, pixels, metadata=None, **{"photometric": photometric, **options})
    return path


def whole_page(path: Path, page: int = 0) -> Pixels:
    """All bands of one page, `(y, x, band)`."""
    with tifffile.TiffFile(path) as tif:
        return bands_of(tif.pages.get(page))


def bands_of(page: Any) -> Pixels:
    pixels: Pixels = page.asarray()
    if page.samplesperpixel > 1 and page.planarconfig == 2:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    alpha = sum(int(extra) in {1, 2} for extra in page.extrasamples)
    pixels = pixels[..., : pixels.shape[-1] - alpha]
    if page.photometric == _PALETTE:
        table = np.asarray(page.tags[320].value).reshape(3, -1)
        table = table if table.max() < 256 else table // 256
        return table[:, pixels[..., 0].astype(int)].transpose(1, 2, 0).astype(np.uint8)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if page.photometric == _MINISWHITE and pixels.dtype.kind == "u":
        pixels = (2**page.bitspersample - 1) - pixels
    return pixels * np.uint8(_SPREAD[page.bitspersample]) if page.bitspersample in _SPREAD else pixels


def assert_reads_like(source: ImageSource, level: int, expected: Pixels, boxes: int = 6, seed: int = 0) -> None:
    """Compare the whole level, its corners and random boxes with the expected pixels."""
    whole = source.levels[level]
    assert (whole.height, whole.width, len(source.bands)) == expected.shape
    assert source.dtype == expected.dtype.newbyteorder("=")
    random = np.random.default_rng(seed)
    places = [whole.box, Box(0, 0, 1, 1), Box(whole.height - 1, whole.width - 1, whole.height, whole.width)]
    for _ in range(boxes):
        ys, xs = (sorted(random.choice(side + 1, 2, replace=False)) for side in (whole.height, whole.width))
        places.append(Box(int(ys[0]), int(xs[0]), int(ys[1]), int(xs[1])))
    for box in places:
        pixels = source.read(level, box)
        assert pixels.flags.c_contiguous
        assert pixels.dtype == source.dtype
        np.testing.assert_array_equal(pixels, expected[box.slices], err_msg=f"level {level}, box {box}")


def open_and_read(path: Path) -> None:
    """Open a file and read the corners of every level."""
    with open_source(path) as source:
        for level in source.levels:
            low, right = min(64, level.height), min(64, level.width)
            source.read(level.index, Box(0, 0, low, right))
            source.read(level.index, Box(level.height - low, level.width - right, level.height, level.width))


def assert_refused(path: Path, *parts: str) -> None:
    started = time.process_time()
    with pytest.raises(SourceError) as caught:
        open_and_read(path)
    assert time.process_time() - started < SECONDS
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(path))
    for part in parts:
        assert part in message
