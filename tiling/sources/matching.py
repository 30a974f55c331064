"""A no-data value against the pixels of an image, as GDAL matches it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_ULPS = 2
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
    if abs(centre) > limit / 2:  # their sum overflows, and so does that of all values this far out
        inner = float(_innermost(centre))
        return (float(-limit), inner) if centre < 0 else (inner, float(limit))
    ends: list[np.floating] = [centre, centre]
    for number, towards in enumerate((-np.inf, np.inf)):
        while np.isfinite(following := _next(ends[number], towards)) and _is_close(following, centre):
            ends[number] = following
    return float(ends[0]), float(ends[1])


def _next(value: np.floating, towards: float) -> np.floating:
    with np.errstate(over="ignore"):
        return np.nextafter(value, type(value)(towards))


def _is_close(value: np.floating, nodata: np.floating) -> bool:
    """`ARE_REAL_EQUAL` of GDAL's gdal_priv_templates.hpp, overflow included: most writers shorten -3.4028235e38."""
    epsilon = type(value)(np.finfo(type(value)).eps)
    with np.errstate(over="ignore"):
        return bool(value == nodata or abs(value - nodata) < epsilon * abs(value + nodata) * type(value)(_ULPS))


def _sum(first: np.floating, second: np.floating) -> np.floating:
    with np.errstate(over="ignore"):
        return first + second


def _innermost(nodata: np.floating) -> np.floating:
    """The value nearest to 0 whose sum with a very large one overflows."""
    kind = type(nodata)
    near, far = kind(0), nodata
    while (middle := near / kind(2) + far / kind(2)) not in (near, far):
        near, far = (near, middle) if np.isinf(_sum(middle, nodata)) else (middle, far)
    return far
