"""Values of a band under objects: sums that are exact whatever parts they came in, least and greatest value.

Bands of 8 and 16 bits are summed as integers; all others as float64 in limbs (`tiling.objects.limbs`), their squares
with what a float64 rounds off of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.objects.limbs import Limbs, limbs_of, totals
from tiling.objects.parts import Columns, column
from tiling.objects.spans import Numbers

_SAFE = 1 << 62
_HALVED_BELOW = 2.0**500


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """True if squares of a type's values are summed as integers."""
    return dtype.kind in "bui" and dtype.itemsize <= 2


def summed(name: str, values: NDArray[Any], spans: Numbers, order: Numbers, first: Numbers) -> Columns:
    """Columns of one band.

    Args:
        name: that the columns begin with.
        values: of all pixels of objects, in raster order.
        spans: where each span's pixels begin in them.
        order: spans by object.
        first: where each object's spans begin in that order.
    """

    def over_objects(whole: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.add.reduceat(_over(whole, spans)[order], first)

    least = np.minimum.reduceat(np.minimum.reduceat(values, spans)[order], first)
    most = np.maximum.reduceat(np.maximum.reduceat(values, spans)[order], first)
    found = [column(f"{name}.min", "min", least), column(f"{name}.max", "max", most)]
    if is_narrow(values.dtype):
        whole = values.astype(np.int64)
        squares = over_objects(whole * whole)
        found += [
            column(f"{name}.sum", "sum", over_objects(whole)),
            column(f"{name}.square_hi", "sum", squares >> 32),
            column(f"{name}.square_lo", "sum", squares & 0xFFFFFFFF),
        ]
        return Columns(found)
    real = values.astype(np.float64)
    unknown = ~np.isfinite(real)
    if unknown.any():
        found.append(column(f"{name}.not_finite", "sum", over_objects(unknown.astype(np.int64))))
        real = np.where(unknown, 0.0, real)
    with np.errstate(over="ignore"):
        square = np.minimum(real * real, np.finfo(np.float64).max)
    squares = [square] if values.dtype == np.float32 else [square, _rounded_off(real, square)]
    for kind, parts in (("sum", [real]), ("square", squares)):
        limbs: Limbs = {}
        for part in parts:
            for k, limb in limbs_of(part).items():
                limbs[k] = limb if k not in limbs else limbs[k] + limb
        found += [column(f"{name}.{kind}@{k}", "sum", over_objects(limb)) for k, limb in limbs.items()]
    return Columns(found)


def _rounded_off(real: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
    """Parts that squares lack of the true ones, exactly (Dekker 1971); nothing where halves of a value would overflow.

    A float32 has few enough digits that its square is a float64.
    """
    small = np.where(np.abs(real) < _HALVED_BELOW, real, 0.0)
    shifted = small * (2.0**27 + 1)
    high = shifted - (shifted - small)
    low = small - high
    lacking = ((high * high - square) + 2 * high * low) + low * low
    return np.where(small == real, lacking, 0.0)


def _over(whole: NDArray[np.int64], spans: Numbers) -> NDArray[np.int64]:
    """Sums over spans that follow on each other."""
    before = np.zeros(whole.size + 1, np.int64)
    np.cumsum(whole, out=before[1:])
    return np.diff(before[np.concatenate([spans, [whole.size]])])


def mean_and_deviation(
    name: str, columns: Columns, pixels: Numbers, dtype: np.dtype[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (of the population, as NumPy's `std`) of a band under each object."""
    if is_narrow(dtype):
        return _of_integers(columns, name, pixels)
    sums, squares = (totals(columns.limbs(f"{name}.{kind}"), pixels.size) for kind in ("sum", "square"))
    mean, deviation = np.empty(pixels.size), np.empty(pixels.size)
    for place, (count, total, square) in enumerate(zip(pixels.tolist(), sums, squares, strict=True)):
        mean[place] = float(total / count)
        deviation[place] = float(max(square / count - (total / count) ** 2, 0)) ** 0.5
    lost = columns.get(f"{name}.not_finite")
    if lost is not None:
        mean[lost > 0] = deviation[lost > 0] = np.nan
    return mean, deviation


def _of_integers(columns: Columns, name: str, pixels: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    total, high, low = (columns[f"{name}.{kind}"] for kind in ("sum", "square_hi", "square_lo"))
    square = (high << 32) + low
    spread = pixels * square - total * total
    # Exact where they fit into 64 bits; the few objects where they don't are computed one by one.
    large = (pixels.astype(np.float64) * (high.astype(np.float64) + 1) * 2.0**32) >= _SAFE
    if not large.any():
        variance = spread / (pixels * pixels)
    else:
        variance = np.empty(pixels.size)
        variance[~large] = (spread / np.maximum(pixels * pixels, 1))[~large]
        for at in np.flatnonzero(large).tolist():
            n, s = int(pixels[at]), int(total[at])
            variance[at] = (n * ((int(high[at]) << 32) + int(low[at])) - s * s) / (n * n)
    return total / pixels, np.sqrt(variance)
