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
    in_place: bool = False,
) -> NDArray[np.int32]:
    """Seeds after some steps; in each, every open pixel that shares an edge with an object joins it.

    Where it shares edges with several, it joins the one of the least number.

    Args:
        seeds_YX: their numbers from 1, 0 elsewhere.
        open_YX: what they may grow into.
        steps: how many.
        heights_YX: in 8 bits; step k of n takes only what lies at least as high as 255 * (n - k) / n.
        classes_YX: an open pixel joins only an object of its own class.
        in_place: seeds, in one piece, become what is returned.
    """
    objects = seeds_YX if in_place else np.array(seeds_YX, np.int32, order="C")
    flat, width = objects.reshape(-1), objects.shape[1]
    at = np.flatnonzero(open_YX)
    at = at[flat[at] == 0]
    y, x = np.divmod(at, width)
    # Of a side that is beyond the block the pixel itself, which is no object's until it has joined one.
    sides = np.where(_inside(y, x, objects.shape), at + np.array([[-width], [-1], [1], [width]]), at)
    heights = None if heights_YX is None else heights_YX.reshape(-1)[at].astype(np.int64)
    if classes_YX is not None:
        classes = classes_YX.reshape(-1)
        sides = np.where(classes[sides] == classes[at], sides, at)
    for step in range(1, steps + 1):
        around = flat[sides]
        around[around == 0] = _NOBODY
        nearest = around.min(axis=0) if at.size else np.empty(0, np.int32)
        joins = nearest != _NOBODY
        if heights is not None:
            joins &= heights * steps >= _TOP * (steps - step)
        elif not joins.any():
            break  # nothing can move any more
        flat[at[joins]] = nearest[joins]
        left = ~joins
        at, sides = at[left], sides[:, left]
        heights = None if heights is None else heights[left]
    return objects


def _inside(y: NDArray[np.int64], x: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Masks of whether the pixels above, left, right and below some pixels are in the block."""
    return np.stack([y > 0, x > 0, x < shape[1] - 1, y < shape[0] - 1])
