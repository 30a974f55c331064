"""Growth of numbered seeds into open pixels, all at once and one step at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOP, _LAST = 255, np.iinfo(np.uint32).max


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
    flat = objects.reshape(-1)
    at = np.flatnonzero(open_YX)
    at = at[flat[at] == 0]
    sides = _sides(at, objects.shape)
    heights = None if heights_YX is None else heights_YX.reshape(-1)[at].astype(np.int64)
    if classes_YX is not None:
        classes = classes_YX.reshape(-1)
        sides = np.where(classes[sides] == classes[at], sides, at)
    for step in range(1, steps + 1):
        # Less one, and without a sign, nobody's 0 is the greatest of all.
        around = flat.take(sides).view(np.uint32)
        nearest = np.subtract(around, 1, out=around).min(axis=0, initial=_LAST) + np.uint32(1)
        joins = nearest != 0
        if heights is not None:
            joins &= heights * steps >= _TOP * (steps - step)
        elif not joins.any():
            break  # nothing can move any more
        flat[at[joins]] = nearest[joins].view(np.int32)
        left = ~joins
        at, sides = at[left], sides[:, left]
        heights = None if heights is None else heights[left]
    return objects


def _sides(at: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Places of the pixels above, left, right and below some pixels, ascending.

    Of a side that is beyond the block the pixel itself, which is no object's until it has joined one.
    """
    height, width = shape
    sides = at + np.array([[-width], [-1], [1], [width]])
    first, last = np.searchsorted(at, [width, (height - 1) * width])
    sides[0, :first], sides[3, last:] = at[:first], at[last:]
    rows = np.arange(height) * width
    for side, ends in ((1, rows), (2, rows + width - 1)):
        here = np.searchsorted(at, ends)
        here = here[at[np.minimum(here, at.size - 1)] == ends] if at.size else here[:0]
        sides[side, here] = at[here]
    return sides
