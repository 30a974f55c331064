"""Numbers as JSON has them, a column of them at once: to the byte what Python's own encoder writes of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress, count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as functions
from numpy.typing import NDArray

_DIGITS = 8
"""Of a float32, which make half as long a file as a float64's."""
_POWERS = np.array([float(f"1e{decimals}") for decimals in range(23)])
"""Those of ten that a float64 holds exactly."""
_NEAR_A_TIE = 1e-6
"""So near to the middle between two numbers the rounding of a product may decide, which is a hundredth of that."""
_LEAST, _MOST = 1e-4, 1e15
"""Between these, Python writes numbers without an exponent."""

_compute: Any = functions


def joined(*parts: Any, between: str = "", without: bool = False) -> Any:
    """Texts one behind the other, as `pyarrow.StringArray` row by row.

    A row with one that is null is null; or, `without`, such are left out.
    """
    nulls = "skip" if without else "emit_null"
    return _compute.binary_join_element_wise(*parts, between, null_handling=nulls)


def numerals(values: NDArray[Any]) -> Any:
    """Each number as text, floats to a float32's digits, as `pyarrow.StringArray`; null where it isn't finite."""
    if values.dtype.kind in "iu":
        return pa.array(values).cast(pa.string())
    shown = rounded(np.asarray(values, np.float64))
    size = np.abs(shown)
    is_odd = ~((size >= _LEAST) & (size < _MOST)) & ((shown != 0) | np.signbit(shown))
    plain = np.where(is_odd, 0.0, shown)
    is_whole = plain == np.rint(plain)
    text = joined(pa.array(plain.astype(np.int64)).cast(pa.string()), ".0")
    if not is_whole.all():
        text = _compute.if_else(pa.array(is_whole), text, pa.array(plain).cast(pa.string()))
    if is_odd.any():
        others = [repr(value) if math.isfinite(value) else None for value in shown[is_odd].tolist()]
        text = _compute.replace_with_mask(text, pa.array(is_odd), pa.array(others, pa.string()))
    return text


def columns_of_numerals(columns: Sequence[NDArray[Any]]) -> list[Any]:
    """The same of columns of one length, all floats at once: a short column costs by calls, not by numbers."""
    is_float = [column.dtype.kind == "f" for column in columns]
    floats = [np.asarray(column, np.float64) for column in compress(columns, is_float)]
    texts: Any = numerals(np.concatenate(floats)) if floats else None
    starts = count(step=len(columns[0]) if columns else 1)
    return [
        texts.slice(next(starts), len(column)) if is_one else numerals(column)
        for column, is_one in zip(columns, is_float, strict=True)
    ]


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest numbers of that many digits, as `float(f"{value:.8g}")` gives each."""
    size = np.abs(values)
    is_sure = np.isfinite(size) & (size > 0)
    decimals = _DIGITS - 1 - np.floor(np.log10(np.where(is_sure, size, 1.0))).astype(np.int64)
    is_sure &= (decimals >= 0) & (decimals < _POWERS.size)
    scale = _POWERS[np.where(is_sure, decimals, 0)]
    digits = np.where(is_sure, size, 0.0) * scale
    is_sure &= (digits >= _POWERS[_DIGITS - 1]) & (digits < _POWERS[_DIGITS])
    is_sure &= np.abs(digits - np.floor(digits) - 0.5) > _NEAR_A_TIE
    # Both numbers are exact, so that their quotient is the float that is nearest to the decimal number.
    found = np.copysign(np.rint(digits) / scale, values)
    others = np.flatnonzero(~is_sure & (size != 0))
    found[others] = [float(f"{value:.{_DIGITS}g}") for value in values[others].tolist()]
    return found
