"""The grid of a run's tiles as a drawing: one path per state, and a square of tiles where there are very many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.reporting.palette import SEVERITY, STATE_COLORS, STATE_NAMES
from tiling.runs.ledger import TileState

MOST_CELLS_PER_SIDE = 64


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells of one state: an SVG path in units of a cell."""

    name: str
    color: str
    tiles: int
    path: str
    crosses: str


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Grid of a run's tiles, as it is drawn.

    Attributes:
        shape: rows and columns of cells.
        step: tiles along each side of a cell; a cell shows the worst state that it holds.
        states: what is in the run, the worst last so that it is drawn on top.
    """

    shape: tuple[int, int]
    step: int
    states: tuple[Cells, ...]

    @classmethod
    def of(cls, states: NDArray[np.uint8], shape: tuple[int, int]) -> TileGrid:
        """The drawing of `states`, one per tile, row by row."""
        step = max(1, -(-max(shape) // MOST_CELLS_PER_SIDE))
        worst = worst_of(states.reshape(shape), step)
        drawn = (_cells(state, states, worst) for state in reversed(SEVERITY))
        rows, cols = worst.shape
        return cls((rows, cols), step, tuple(cells for cells in drawn if cells.tiles))


def worst_of(states: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The worst state of every `step` x `step` square of tiles."""
    rank = np.zeros(max(TileState) + 1, np.uint8)
    for place, state in enumerate(reversed(SEVERITY)):
        rank[state] = place
    rows, cols = (range(0, side, step) for side in states.shape)
    ranks = np.maximum.reduceat(np.maximum.reduceat(rank[states], rows, axis=0), cols, axis=1)
    return np.array([int(state) for state in reversed(SEVERITY)], np.uint8)[ranks]


def _cells(state: TileState, states: NDArray[np.uint8], worst: NDArray[np.uint8]) -> Cells:
    places = np.argwhere(worst == state).tolist()
    squares = "".join(f"M{x} {y}h1v1h-1z" for y, x in places)
    marked = places if state in {TileState.FAILED, TileState.DAMAGED} else []
    crosses = "".join(f"M{x}.28 {y}.28l.44 .44m0-.44l-.44 .44" for y, x in marked)
    return Cells(STATE_NAMES[state], STATE_COLORS[state], int(np.count_nonzero(states == state)), squares, crosses)
