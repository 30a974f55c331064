"""Growth of numbered seeds into open pixels, all at once and one step at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NOBODY = np.iinfo(np.int32).max
_TOP = 255


def grown(
    seeds_YX: NDArray[np.int32],
    open_YX: NDArray[np.bool_],
    steps: int,
    *,
    heights_YX: NDArray[np.uint8] | None = None,
    classes_YX: NDArray[np.uint8] | None = None,
) -> NDArray[np.int32]:
    """Seeds after some steps; in each, every open pixel that shares an edge with an object joins it.

    Where it shares edges with several, it joins the one of the least number.

    Args:
        seeds_YX: their numbers from 1, 0 elsewhere.
        open_YX: what they may grow into.
        steps: how many.
        heights_YX: in 8 bits; step k of n takes only what lies at least as high as 255 * (n - k) / n.
        classes_YX: an open pixel joins only an object of its own class.
    """
    height, width = seeds_YX.shape
    row = width + 2
    objects = np.zeros((height + 2, row), np.int32)
    objects[1:-1, 1:-1] = seeds_YX
    flat = objects.reshape(-1)
    at = np.flatnonzero(open_YX)
    at = at[seeds_YX.reshape(-1)[at] == 0]
    y, x = np.divmod(at, width)
    places = (y + 1) * row + x + 1
    heights = None if heights_YX is None else heights_YX.reshape(-1)[at].astype(np.int64)
    same = None if classes_YX is None else _sides_of_one_class(classes_YX, y, x)
    for step in range(1, steps + 1):
        around = np.stack([flat[places - row], flat[places - 1], flat[places + 1], flat[places + row]])
        is_free = around == 0 if same is None else (around == 0) | ~same
        around[is_free] = _NOBODY
        nearest = around.min(axis=0) if places.size else np.empty(0, np.int32)
        joins = nearest != _NOBODY
        if heights is not None:
            joins &= heights * steps >= _TOP * (steps - step)
        elif not joins.any():
            break  # nothing can move any more
        flat[places[joins]] = nearest[joins]
        left = ~joins
        places = places[left]
        heights = None if heights is None else heights[left]
        same = None if same is None else same[:, left]
    return objects[1:-1, 1:-1]


def _sides_of_one_class(classes_YX: NDArray[np.uint8], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Masks of the pixels above, left, right and below some pixels that are of their class."""
    padded = np.pad(classes_YX, 1)
    own = classes_YX[y, x]
    return np.stack([padded[y, x + 1], padded[y + 1, x], padded[y + 1, x + 2], padded[y + 2, x + 1]]) == own
