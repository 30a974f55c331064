"""Size of a staged tile, and the staging budget that it must fit."""

from __future__ import annotations

import numpy as np

from flows.config.archive import ArchiveConfig
from tiling.errors import PlanError
from tiling.runs.run import Run
from tiling.storage.chunk import MOST_OVERHEAD_BYTES


def tile_bytes(run: Run) -> int:
    """Most bytes that a staged tile takes."""
    height, width = run.plan.read_shape
    return height * width * run.staged_bands * np.dtype(run.card.image.dtype).itemsize + MOST_OVERHEAD_BYTES


def expect_budget(run: Run, config: ArchiveConfig) -> None:
    """Refuse a staging budget in which not one tile fits.

    Raises:
        PlanError: it is smaller than a staged tile.
    """
    takes, budget = tile_bytes(run), config.staging_budget
    if config.staging and budget is not None and takes > budget:
        raise PlanError(
            f"one staged tile takes {takes / 1e6:.0f} MB, more than the staging budget of {budget / 1e6:.0f} MB: "
            f"nothing could be staged; use a smaller --core, or --no-staging"
        )
