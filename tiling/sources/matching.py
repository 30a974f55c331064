"""A no-data value against the pixels of an image, as GDAL matches it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

_ULPS, _EPSILON = 2, float(np.finfo(np.float32).eps)
"""By how many units in the last place GDAL lets a float differ from a no-data value (`ARE_REAL_EQUAL`)."""


@lru_cache(maxsize=64)
def matched(nodata: float | None, dtype: np.dtype[np.generic]) -> tuple[float, float] | None:
    """The lowest and the highest value of a type that count as a no-data value; None where none does.

    The value stands in files as text, often shorter than it: floats are compared as GDAL compares them, in their own
    precision and to two units in the last place. Integers are equal or not.
    """
    if nodata is None or np.isnan(nodata):
        return None
    if dtype.kind in "iu":
        limits = np.iinfo(str(dtype))
        return (nodata, nodata) if nodata == np.rint(nodata) and limits.min <= nodata <= limits.max else None
    if np.isinf(nodata):
        return None  # no number, as all infinities
    kind = np.float64 if dtype.itemsize > 4 else np.float32
    limit = np.finfo(kind).max
    centre = kind(np.clip(nodata, -limit, limit))
    if abs(centre) > limit / 2:
        # Sums of two values this far out overflow, and an infinity is within any distance: so writers may well shorten
        # -3.4028235e38.
        inner = float(_last(kind(centre), kind(0), lambda value: bool(np.isinf(_sum(value, centre)))))
        return (float(-limit), inner) if centre < 0 else (inner, float(limit))
    reach = abs(centre) * kind(8 * _EPSILON)
    ends = [_last(centre, centre + side, lambda value: _is_close(value, centre)) for side in (-reach, reach)]
    return float(ends[0]), float(ends[1])


def _is_close(value: np.floating, nodata: np.floating) -> bool:
    """`ARE_REAL_EQUAL` of GDAL's gdal_priv_templates.hpp, which takes the epsilon of float for doubles too."""
    kind = type(value)
    return bool(value == nodata or abs(value - nodata) < kind(_EPSILON) * abs(_sum(value, nodata)) * kind(_ULPS))


def _last(near: np.floating, far: np.floating, is_so: Callable[[np.floating], bool]) -> np.floating:
    """The value furthest from `near` of which something is so that isn't of `far`."""
    kind = type(near)
    while (middle := near / kind(2) + far / kind(2)) not in (near, far):
        near, far = (middle, far) if is_so(middle) else (near, middle)
    return near


def _sum(first: np.floating, second: np.floating) -> np.floating:
    with np.errstate(over="ignore"):
        return first + second
