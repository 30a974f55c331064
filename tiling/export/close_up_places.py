"""Places of a run that are worth a close look, found on a coarse view: where a person can judge what was found.

A place shows something where the picture has detail, compared with the detail around what was found: glass, the dark of
a fluorescence image and pixels without data have none, and nobody can judge what they show. It is judged by detail and
not by colour, since a run may be of any image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiling.runs.ledger import LedgerState, TileState
from tiling.sources.downsample import ScreenView

if TYPE_CHECKING:
    from tiling.runs.run import Run

SIDE_PX = 256
"""Pixels of the segmented level that a close-up shows."""

LEAST_DETAIL = 0.25
"""Of the detail around what was found; a place with less shows nothing that could be judged."""
LEAST_CONTRAST = 1.5
"""Of 255: the mean step between neighbouring pixels that a picture has in which nothing was found; glass has less."""
LEAST_FOUND = 0.005
"""Share of a place; what covers less is a speck."""
LEAST_OUTLINE = 0.25
"""Of the mean length of outlines: the middle of a lake has none."""
EDGE = (0.35, 0.65)
"""Share of a place that has detail, where one side of it is empty."""
MOSTLY = 0.5
"""The same, of a place that is no edge."""
STEP = 6
"""Of what is counted, to a step between neighbours: three bands, towards two sides."""
DOUBT = 255
"""Of a doubt, where a probability is one half."""
MOST_PLACES = 1000
"""Of one kind: enough that some lie apart from those of the others."""

Corner = tuple[int, int]
Flags = NDArray[np.bool_]
Values = NDArray[np.float32]
Counts = NDArray[np.integer[Any] | np.bool_]
Labels = NDArray[np.uint8]
Centres = NDArray[np.intp]
"""Pixels of the coarse view, `(n, 2)`."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Means over the square of a close-up around each pixel of a coarse view, `(y, x)`.

    Attributes:
        found: share in which something was found.
        outlined: share in which labels change.
        detail: mean step between neighbouring pixels of the picture, of 255, 0 where nothing was computed.
        filled: share that has about as much detail as there is around what was found.
        lost: share of tiles that failed or are to do, whose pixels look as if something had been missed.
        typical: the detail around what was found; where nothing is, the most that there is.
    """

    found: Values
    outlined: Values
    detail: Values
    filled: Values
    lost: Values
    typical: float

    @classmethod
    def of(
        cls, picture: NDArray[np.uint8], labels: Labels, classes: int, states: NDArray[np.uint8], side: int
    ) -> Surroundings:
        known = (states != TileState.SKIPPED) & (labels < classes)
        steps = _steps(picture) * known
        found, near = _mean(known & (labels > 0), side), _mean(steps, side, STEP)
        total = float(found.sum())
        typical = float((found * near).sum()) / total if total > 0 else float(near.max())
        fine = _mean(steps, max(1, side // 8), STEP)
        return cls(
            found=found,
            outlined=_mean(_changes(labels) & known, side),
            detail=near,
            filled=_mean((fine >= LEAST_DETAIL * typical) & known, side),
            lost=_mean((labels >= classes) & (states != TileState.DONE), side),
            typical=typical,
        )

    @property
    def shows(self) -> Flags:
        """Pixels around which there is something to judge."""
        return (self.detail > 0) & (self.detail >= LEAST_DETAIL * self.typical) & (self.lost == 0)

    @property
    def ends(self) -> Flags:
        """Pixels around which one side is empty."""
        return (self.filled >= EDGE[0]) & (self.filled <= EDGE[1])


def ranked_places(
    run: Run, state: LedgerState, view: ScreenView, labels: Labels, doubts: NDArray[np.uint8] | None = None
) -> Mapping[str, list[Corner]]:
    """The first pixels of places for each close-up, in pixels of the segmented level, the best first.

    Args:
        view: the image at screen size.
        labels: the mask's, `(y, x)`, at the same size.
        doubts: how near to one half the probabilities are, 0 to `DOUBT`, on the same grid, where the run keeps them.
    """
    factor, side = view.factor, max(1, SIDE_PX // view.factor)
    shape = labels.shape[0], labels.shape[1]
    states = _states(run, state, shape, factor)
    around = Surroundings.of(view.picture[: shape[0], : shape[1]], labels, len(run.classes), states, side)
    apart, close = _centres(shape, side, side), _centres(shape, side, max(1, side // 4))
    corners = _tile_corners(run, shape, factor)
    of = _of_something if around.found.any() else _of_nothing
    found = of(around, apart, close, corners)
    if doubts is not None:
        near = np.where(around.shows, _mean(doubts, side, DOUBT), 0)
        found["uncertain"] = _best(close, near, near > 0)
    return {name: [_corner(run, y * factor, x * factor) for y, x in centres] for name, centres in found.items()}


def _of_something(around: Surroundings, apart: Centres, close: Centres, corners: Centres) -> dict[str, list[Corner]]:
    some = around.shows & (around.found >= LEAST_FOUND)
    if not _at(some, apart).any():  # a few specks, or what shows no detail, are all that was found
        some = around.found > 0
    lengths = around.outlined[some]
    judged = some & (around.outlined >= LEAST_OUTLINE * float(lengths.mean()))
    falling = _best(apart, around.found, judged, most=len(apart))
    middle = len(falling) // 2
    inside = some & (around.filled >= MOSTLY)
    return {
        "densest": falling[:MOST_PLACES],
        "median": [falling[at] for at in sorted(range(len(falling)), key=lambda at: abs(at - middle))][:MOST_PLACES],
        "sparsest": _best(apart, -around.found, inside if _at(inside, apart).any() else some),
        "seam": _best(corners, around.outlined, some & (around.outlined > 0)),
        "edge": _best(close, around.found, some & around.ends),
    }


def _of_nothing(around: Surroundings, apart: Centres, close: Centres, corners: Centres) -> dict[str, list[Corner]]:
    """Places of a mask without anything: what may have been missed."""
    if around.typical < LEAST_CONTRAST:
        return {}
    return {
        "nothing": _best(apart, around.detail, around.shows),
        "seam": _best(corners, around.detail, around.shows),
        "edge": _best(close, around.detail, around.shows & around.ends),
    }


def _best(centres: Centres, worth: Values, allowed: Flags, most: int = MOST_PLACES) -> list[Corner]:
    """Those of the centres that are allowed, of the greatest worth first; of equal ones the first."""
    kept = centres[_at(allowed, centres)]
    order = np.argsort(-_at(worth, kept), kind="stable")[:most]
    return [(int(y), int(x)) for y, x in kept[order]]


def _at(values: NDArray[Any], centres: Centres) -> NDArray[Any]:
    return values[centres[:, 0], centres[:, 1]]


def _centres(shape: tuple[int, int], side: int, step: int) -> Centres:
    """Middles of squares of that side inside a view; of one that is smaller, its own middle."""

    def along(size: int) -> list[int]:
        first = min(side // 2, size // 2)
        last = max(first, size - side + side // 2)
        return sorted({*range(first, last + 1, step), last})

    return _crossings(along(shape[0]), along(shape[1]))


def _crossings(rows: Sequence[int], cols: Sequence[int]) -> Centres:
    return np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.intp)


def _tile_corners(run: Run, shape: tuple[int, int], factor: int) -> Centres:
    """Places where four tiles meet; where the grid has one row or column, where two do; none of a single tile."""
    (rows, cols), (height, width) = run.plan.shape, run.plan.extent
    if rows * cols == 1:
        return np.zeros((0, 2), np.intp)
    tops = [run.plan.at(row, 0).core.y0 for row in range(1, rows)] or [height // 2]
    lefts = [run.plan.at(0, col).core.x0 for col in range(1, cols)] or [width // 2]
    inside = [[min(at // factor, size - 1) for at in firsts] for firsts, size in zip((tops, lefts), shape, strict=True)]
    return _crossings(*inside)


def _states(run: Run, state: LedgerState, shape: tuple[int, int], factor: int) -> NDArray[np.uint8]:
    """State of the tile that each pixel of the view lies in."""
    rows, cols = run.plan.shape
    states = np.asarray(state.states, np.uint8).reshape(rows, cols)
    tops = [run.plan.at(row, 0).core.y0 for row in range(rows)]
    lefts = [run.plan.at(0, col).core.x0 for col in range(cols)]
    row_of, col_of = (
        np.searchsorted(firsts, (np.arange(size) + 0.5) * factor, side="right") - 1
        for firsts, size in zip((tops, lefts), shape, strict=True)
    )
    return states[np.ix_(row_of, col_of)]


def _corner(run: Run, y: int, x: int) -> Corner:
    """The first pixel of a square around a place, moved into the image."""
    height, width = run.plan.extent
    return max(0, min(y - SIDE_PX // 2, height - SIDE_PX)), max(0, min(x - SIDE_PX // 2, width - SIDE_PX))


def _mean(counts: Counts, side: int, unit: int = 1) -> Values:
    """Mean over the square of a side around each pixel, in units of so many; beyond the view there is nothing."""
    if not counts.any():
        return np.zeros(counts.shape, np.float32)
    (height, width), before = counts.shape, side // 2 + 1
    sums = np.zeros((height + side, width + side), np.uint32)
    sums[before : before + height, before : before + width] = counts
    # Sums from the first pixel on may wrap: differences of them, which are the sums of squares, are right all the same.
    np.cumsum(sums, axis=1, out=sums)
    sums = sums[:, side:] - sums[:, :-side]
    for above, row in pairwise(sums):  # a third of the time of `cumsum` down the columns
        np.add(row, above, out=row)
    return (sums[side:] - sums[:-side]).astype(np.float32) / np.float32(unit * side * side)


def _steps(picture: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Steps of brightness to the pixel below and to the right, each `STEP`, 0 at the last ones."""
    bright = picture[..., 0].astype(np.int16) + picture[..., 1] + picture[..., 2]
    steps = np.zeros_like(bright)
    steps[:-1] += np.abs(np.diff(bright, axis=0))
    steps[:, :-1] += np.abs(np.diff(bright, axis=1))
    return steps


def _changes(labels: Labels) -> Flags:
    changes = np.zeros(labels.shape, np.bool_)
    changes[:-1] |= labels[:-1] != labels[1:]
    changes[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return changes
