"""Sums of floats that are exact, so that no order and no partition changes their last bit.

A float is a whole number of limbs: 32 bits at `2**(32 * k)` each. Limbs are added as integers; what no value has
isn't kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tiling.objects.spans import Numbers

BITS = 32
_LOWEST = -1074 // BITS

Limbs = dict[int, NDArray[np.int64]]
"""For each k that occurs: how many `2**(32 * k)`, of every sum."""


def limbs_of(values: NDArray[np.float64]) -> Limbs:
    """Of finite values, each by itself."""
    found: Limbs = {}
    rest = values
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return found
    k = (int(np.frexp(largest)[1]) - 1) // BITS
    while k >= _LOWEST:
        part = np.trunc(np.ldexp(rest, -BITS * k))
        if part.any():
            found[k] = part.astype(np.int64)
            rest = rest - np.ldexp(part, BITS * k)
            if not rest.any():
                return found
        k -= 1
    # What is left are multiples of the smallest float there is.
    found[_LOWEST - 1] = np.ldexp(rest, -BITS * (_LOWEST - 1)).astype(np.int64)
    return found


def totals(limbs: Mapping[int, Numbers], count: int) -> list[Fraction]:
    """Each of the sums, exactly."""
    whole = [0] * count
    lowest = min(limbs, default=0)
    for k, parts in limbs.items():
        scale = 1 << (BITS * (k - lowest))
        whole = [sum_ + part * scale for sum_, part in zip(whole, parts.tolist(), strict=True)]
    unit = Fraction(2) ** (BITS * lowest)
    return [unit * value for value in whole]
