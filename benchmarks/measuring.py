"""What measuring objects takes: processor seconds per gigapixel, and memory, of drawn labels of any size."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.objects.measure import Measurement, measure_block
from tiling.objects.object_block import MARGIN, ObjectBlock

BLOCK_PX = 1024
PER_MEGAPIXEL = 100
RADIUS_PX = 12
BANDS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of an image of that side."""

    side_px: int
    objects: int
    seconds_per_gigapixel: float
    peak_mb: float


def measured(side_px: int) -> Measured:
    """Measure drawn objects, row by row of blocks, giving up those that have ended; drawing isn't counted."""
    measurement = Measurement((side_px, side_px), np.dtype(np.uint8), BANDS)
    seconds, objects = 0.0, 0
    for block in drawn(side_px):
        started = time.process_time()
        part = measure_block(block)
        if part is not None:
            measurement.add_part(part)
        if block.origin[1] + block.shape[1] == side_px:
            objects += sum(len(each) for each in measurement.finished(block.origin[0] + block.shape[0]))
        seconds += time.process_time() - started
    started = time.process_time()
    objects += sum(len(each) for each in measurement.rest())
    seconds += time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(side_px, objects, seconds / (side_px**2 / 1e9), peak)


def drawn(side_px: int) -> Iterator[ObjectBlock]:
    """Ellipses, 100 for each megapixel, some of which cross the blocks' borders."""
    random = np.random.default_rng(1)
    pitch = round(1000 / PER_MEGAPIXEL**0.5)
    pixels = random.integers(0, 256, (BLOCK_PX, BLOCK_PX, BANDS), np.uint8)
    for y0 in range(0, side_px, BLOCK_PX):
        for x0 in range(0, side_px, BLOCK_PX):
            tall, wide = min(BLOCK_PX, side_px - y0), min(BLOCK_PX, side_px - x0)
            rows, cols = (np.arange(at - MARGIN, at + size + MARGIN) for at, size in ((y0, tall), (x0, wide)))
            labels = ellipses(rows, cols, pitch, -(-side_px // pitch))
            labels[(rows < 0) | (rows >= side_px)] = 0
            labels[:, (cols < 0) | (cols >= side_px)] = 0
            yield ObjectBlock((y0, x0), labels, pixels[:tall, :wide])


def ellipses(rows: NDArray[np.int64], cols: NDArray[np.int64], pitch: int, per_row: int) -> NDArray[np.int32]:
    """One for each cell of a grid, of different widths, by their places in the whole image."""
    (down, y), (along, x) = np.divmod(rows, pitch), np.divmod(cols, pitch)
    number = (down[:, None] * per_row + along[None] + 1).astype(np.int32)
    narrow = 1 + (number % 5) / 4
    inside = (y[:, None] - pitch / 2) ** 2 + ((x[None] - pitch / 2) * narrow) ** 2 < RADIUS_PX**2
    return np.where(inside, number, np.int32(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    print(json.dumps(asdict(measured(parser.parse_args().side))))
