"""Millions of positions as text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ZERO = ord("0")


def positions(points: NDArray[np.generic], decimals: int) -> tuple[bytes, NDArray[np.int64]]:
    """Every point as `[x,y],`, all of them one after another, and where each begins; `(n + 1,)`.

    Args:
        points: `(n, 2)` of x and y.
        decimals: of each number, all of which are written.
    """
    size = len(points)
    columns: list[NDArray[np.uint8]] = []
    kept: list[NDArray[np.bool_]] = []
    for axis, (before, after) in enumerate((("[", ","), ("", "],"))):
        x = points[:, axis]
        # Whole numbers from here on: how many of the last decimal.
        whole = x.astype(np.int64) if decimals == 0 and x.dtype.kind == "i" else _whole(x, decimals)
        _constant(columns, kept, before, size)
        columns.append(np.full(size, ord("-"), np.uint8))
        kept.append(whole < 0)
        _digits(columns, kept, np.abs(whole), decimals)
        _constant(columns, kept, after, size)
    keep = np.stack(kept, axis=1)
    text = np.stack(columns, axis=1)[keep].tobytes()
    starts = np.zeros(size + 1, np.int64)
    np.cumsum(keep.sum(axis=1), out=starts[1:])
    return text, starts


def _whole(x: NDArray[np.generic], decimals: int) -> NDArray[np.int64]:
    return np.rint(x.astype(np.float64) * 10.0**decimals).astype(np.int64)


def _constant(columns: list[NDArray[np.uint8]], kept: list[NDArray[np.bool_]], text: str, size: int) -> None:
    for character in text:
        columns.append(np.full(size, ord(character), np.uint8))
        kept.append(np.ones(size, np.bool_))


def _digits(
    columns: list[NDArray[np.uint8]], kept: list[NDArray[np.bool_]], whole: NDArray[np.int64], decimals: int
) -> None:
    """Digits from the first one of the greatest number on; zeros ahead of a number's own first digit are left out."""
    count = max(len(str(whole.max(initial=0))), decimals + 1)
    rest = whole.astype(np.uint32) if count < 10 else whole
    digits: list[NDArray[np.uint8]] = []
    wanted: list[NDArray[np.bool_]] = []
    for place in range(count):
        wanted.append(rest > 0 if place > decimals else np.ones(rest.size, np.bool_))
        rest, digit = np.divmod(rest, rest.dtype.type(10))
        digits.append(digit.astype(np.uint8) + np.uint8(_ZERO))
    if decimals:
        digits.insert(decimals, np.full(whole.size, ord("."), np.uint8))
        wanted.insert(decimals, np.ones(whole.size, np.bool_))
    columns.extend(reversed(digits))
    kept.extend(reversed(wanted))
