"""Uncomputed area of a mask: in skipped tiles, outside of polygons, without data, not predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tiling.runs.ledger import PLANNED, LedgerState, TileState
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED
from tiling.runs.no_data import NO_DATA

if TYPE_CHECKING:
    from tiling.runs.run import Run

SHARE = "foreground share"
"""Of the extent: a fact of the event `PLANNED`; null where foreground isn't distinguished from the rest."""

SKIPPED_NAME = "skipped as empty"
OUTSIDE_NAME = "outside the polygons"
NO_DATA_NAME = "no data"
NOT_PREDICTED_NAME = "not predicted"


@dataclass(frozen=True, slots=True)
class UncomputedArea:
    """Pixels of a mask that count to no class, nor to its background.

    Attributes:
        skipped: in tiles that were skipped as empty, and in squares without tissue of the others, inside of the
            polygons where there are some.
        outside: of polygons that were asked for; None where none were. Tiles that failed or are to do are left out:
            nothing in them is predicted.
        foreground: pixels of the extent that are tissue (or data, or the given mask's) by a coarse look; None where
            that isn't known, or there are such tiles, whose part of it isn't known.
        no_data: that hold no data, wherever they lie but in tiles that failed or are to do; None of images that hold
            data everywhere, and of runs of earlier versions.
        near: that hold data and lie within the halo of some that don't, where the network saw what was filled.
    """

    skipped: int
    outside: int | None
    foreground: float | None
    no_data: int | None = None
    near: int = 0

    @classmethod
    def of(cls, run: Run, state: LedgerState) -> UncomputedArea:
        """Raises RunError where the run has lost its polygons."""
        empty = np.isin(state.states, (TileState.FAILED, TileState.PENDING))
        planned = state.last_event(PLANNED)
        share = planned.facts.get(SHARE) if planned is not None else None
        skipped, known = state.indices(TileState.SKIPPED), np.flatnonzero(~empty)
        lacking, lacked = state.no_data_counts(known), state.no_data_counts(skipped)
        # What is outside and holds no data counts as that alone.
        outside = int(run.outside[skipped].sum()) - lacked.outside
        whole = sum(run.plan.tile(int(index)).valid.area for index in skipped)
        others = np.setdiff1d(known, skipped)
        bare = run.apart_from_tissue(others) - state.no_data_counts(others).apart
        return cls(
            skipped=whole - outside - lacked.no_data + bare,
            outside=int(run.outside[known].sum()) - lacking.outside if run.outline is not None else None,
            foreground=share * run.plan.mask.area if share is not None and not empty.any() else None,
            no_data=lacking.no_data if run.fill is not None else None,
            near=lacking.near,
        )

    @property
    def area(self) -> int:
        """Pixels that hold background without having been computed."""
        return self.skipped + (self.outside or 0)

    def rows(self, not_predicted: int) -> list[tuple[int, str, int]]:
        """Label, name and pixels of each kind of uncomputed area, in the order of tables."""
        outside = [] if self.outside is None else [(BACKGROUND, OUTSIDE_NAME, self.outside)]
        skipped = (BACKGROUND, SKIPPED_NAME, self.skipped)
        no_data = [] if self.no_data is None else [(NO_DATA, NO_DATA_NAME, self.no_data)]
        return [skipped, *outside, *no_data, (NOT_PREDICTED, NOT_PREDICTED_NAME, not_predicted)]
