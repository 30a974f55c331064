"""Tiles that are not computed: background, but for pixels without data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.plan import Tile
from tiling.runs.mask import BACKGROUND
from tiling.runs.no_data import ALL_DATA, NO_DATA, NoDataCounts, held_on_mask
from tiling.runs.run import Run
from tiling.source import ImageSource


@dataclass(frozen=True, slots=True, eq=False)
class Skipped:
    """Labels of a skipped tile's valid region, `(y, x)`, and how many of its pixels lack data."""

    labels: NDArray[np.uint8]
    empty: NoDataCounts = ALL_DATA

    @property
    def has_data(self) -> bool:
        return self.empty.no_data < self.labels.size

    @classmethod
    def of(cls, run: Run, source: ImageSource | None, tile: Tile) -> Skipped:
        """Read where a tile of the run's image holds data.

        Args:
            run: the run.
            source: its image; None where all of it is known to hold data.
            tile: of its plan.

        Raises:
            SourceError: the tile's part of the image doesn't decode.
        """
        labels = np.full(tile.valid.shape, BACKGROUND, np.uint8)
        if source is None or source.fill is None:
            return cls(labels)
        seen = tile.core.intersect(run.plan.image)
        held = source.read_filled(run.card.image.level, seen)[1]
        if held is None:
            return cls(labels)
        found = held_on_mask(held, (seen.y0, seen.x0), tile, run.plan)
        labels[~found] = NO_DATA
        outside = 0 if run.outline is None else int(np.count_nonzero(~found & ~run.outline.inside(tile.valid)))
        return cls(labels, NoDataCounts(int(np.count_nonzero(~found)), 0, outside))
