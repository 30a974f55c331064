"""A few rows of a label image, laid out so that neighbours lie at constant distances in one flat array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
"""uint8 of a mask, int32 of numbered objects."""
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Rows of a label image with the row above them, and a column of background on either side.

    Attributes:
        flat: all labels row by row; the first row is the one above.
        width: of a row with its two columns of background.
        rows: new rows.
        y0: the first new row's place in the image.
        across: where a label differs from the next one in its row.
        down: where a label differs from the one below it.
    """

    flat: Labels
    width: int
    rows: int
    y0: int
    across: Flags
    down: Flags

    @classmethod
    def of(cls, above: Labels, rows_YX: Labels, y0: int) -> Band:
        """Of new rows and the row above them."""
        height, inner = rows_YX.shape
        padded = np.zeros((height + 1, inner + 2), rows_YX.dtype)
        padded[0, 1:-1] = above
        padded[1:, 1:-1] = rows_YX
        flat, width = padded.ravel(), inner + 2
        return cls(flat, width, height, y0, flat[1:] != flat[:-1], flat[width:] != flat[:-width])


def bands_of(rows: Iterable[Labels]) -> Iterator[Band]:
    """The bands of a whole image from its rows, top to bottom, and a last one of background that ends everything."""
    last: Labels = np.empty(0, np.uint8)
    y0 = 0
    for rows_YX in rows:
        above = last if y0 else np.zeros(rows_YX.shape[1], rows_YX.dtype)
        yield Band.of(above, rows_YX, y0)
        last = rows_YX[-1].copy()
        y0 += rows_YX.shape[0]
    if y0:
        yield Band.of(last, np.zeros((1, last.size), last.dtype), y0)


def spread(starts: Numbers, counts: Numbers) -> Numbers:
    """`counts[i]` numbers from `starts[i]` on, one after another."""
    ends = counts.cumsum()
    return np.arange(ends[-1] if ends.size else 0) + np.repeat(starts - (ends - counts), counts)
