"""A level of a mask or of probabilities from top to bottom, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import Box
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask import BACKGROUND
from tiling.runs.no_data import NO_DATA
from tiling.runs.pyramid import Pyramid
from tiling.storage.generator_threads import GeneratorThreads

if TYPE_CHECKING:
    from tiling.runs.run import Run

BAND_PIXELS = 2 * 1024**2
"""Of labels that are polygonised at once: at worst, where every pixel differs from its neighbours, this takes some
hundred bytes of memory for each of them."""
READ_PIXELS = 4 * 1024**2


def rows_of(pyramid: Pyramid, level: int = 0, multiple: int | None = None) -> Iterator[NDArray[Any]]:
    """All rows of a level, the next ones being read while these are used.

    Args:
        pyramid: `(y, x)` or `(channel, y, x)`.
        level: of the pyramid.
        multiple: how many rows come at once is a multiple of this, but for the last ones; the height of its chunks
            when not given, so that none is decoded twice.
    """
    array = pyramid.levels[level]
    height, width = cast("tuple[int, int]", array.shape[-2:])
    unit = multiple or array.chunks[-2]
    channels = array.shape[0] if array.ndim == 3 else 1
    tall = unit * max(1, READ_PIXELS // (unit * width * channels))

    def read(y: int) -> NDArray[Any]:
        return pyramid.read(Box(y, 0, min(y + tall, height), width), level)

    with GeneratorThreads(1) as ahead:
        coming: Future[NDArray[Any]] = ahead.submit(read, 0)
        for y in range(0, height, tall):
            rows = coming.result()
            if y + tall < height:
                coming = ahead.submit(read, y + tall)
            yield rows


def bands_of_labels(pyramid: Pyramid, without: Iterable[Box] = ()) -> Iterator[NDArray[np.uint8]]:
    """The labels of level 0 in bands that the polygoniser takes at once.

    In the boxes `without`, given from top to bottom, pixels without data are background: they are no object's.
    """
    for rows in _with_data(rows_of(pyramid), without):
        tall = max(1, BAND_PIXELS // rows.shape[-1])
        for y in range(0, rows.shape[0], tall):
            yield rows[y : y + tall]


def bands_of_objects(
    mask: Pyramid, objects: Pyramid, without: Iterable[Box] = ()
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """The same of the mask's labels and the objects' numbers side by side."""
    for rows, numbers in zip(_with_data(rows_of(mask), without), rows_of(objects), strict=True):
        tall = max(1, BAND_PIXELS // rows.shape[-1])
        for y in range(0, rows.shape[0], tall):
            yield rows[y : y + tall], numbers[y : y + tall]


def _with_data(bands: Iterable[NDArray[np.uint8]], without: Iterable[Box]) -> Iterator[NDArray[np.uint8]]:
    """Rows of a mask; in some boxes pixels without data become background."""
    boxes, y0 = [*without], 0
    for rows in bands:
        y1 = y0 + rows.shape[0]
        for box in takewhile(partial(_begins_above, y1), boxes):
            part = rows[max(0, box.y0 - y0) : box.y1 - y0, box.x0 : box.x1]
            part[part == NO_DATA] = BACKGROUND
        yield rows
        boxes, y0 = [box for box in boxes if box.y1 > y1], y1


def _begins_above(y: int, box: Box) -> bool:
    return box.y0 < y


def without_data(run: Run, state: LedgerState) -> list[Box]:
    """The valid regions of tiles that are computed or skipped and have pixels without data, from top to bottom."""
    if not len(state.empty):
        return []
    known = np.isin(state.states, (TileState.DONE, TileState.SKIPPED)) & (state.empty[:, 0] > 0)
    return [run.plan.tile(int(index)).valid for index in np.flatnonzero(known)]
