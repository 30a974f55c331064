"""Least and greatest band of each pixel.

Band by band: along an axis of three NumPy takes several times as long for the same numbers.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Means = NDArray[np.floating[Any]]


def least_band(means_YXC: Means) -> Means:
    """The least of each pixel's bands; not a number where one of them is none."""
    return cast("Means", reduce(np.minimum, np.moveaxis(means_YXC, -1, 0)))


def greatest_band(means_YXC: Means) -> Means:
    """The greatest of each pixel's bands; not a number where one of them is none."""
    return cast("Means", reduce(np.maximum, np.moveaxis(means_YXC, -1, 0)))
