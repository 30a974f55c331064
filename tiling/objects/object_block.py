"""Blocks of a label image with what is measured under it: any partition of the image, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARGIN = 2
"""Labels around a block that its perimeters depend on: whether a pixel is an outline's depends on its neighbours, and
how much it adds on theirs."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectBlock:
    """One rectangle of the image.

    Attributes:
        origin: the block's first pixel in the image, y before x, without the margin.
        labels: `(h + 4, w + 4)` identifiers with `MARGIN` pixels around the block; 0 is no object, and outside the
            image.
        bands: `(h, w, band)` values of the image; None where none are measured.
        probabilities: `(channel, h, w)` in 8 bits; None where none were kept.
        missing: `(h + 4, w + 4)`, where nothing is known: a failed tile, or no data. None where all is known.
    """

    origin: tuple[int, int]
    labels: NDArray[np.integer[Any]]
    bands: NDArray[Any] | None = None
    probabilities: NDArray[np.uint8] | None = None
    missing: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        height, width = self.shape
        expected = {
            "bands": (None if self.bands is None else self.bands.shape[:2], (height, width)),
            "probabilities": (None if self.probabilities is None else self.probabilities.shape[1:], (height, width)),
            "missing": (None if self.missing is None else self.missing.shape, self.labels.shape),
        }
        for name, (shape, wanted) in expected.items():
            if shape is not None and shape != wanted:
                raise AssertionError(f"{name} of {shape} px in a block of {wanted} px")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width without the margin."""
        height, width = self.labels.shape
        return height - 2 * MARGIN, width - 2 * MARGIN
