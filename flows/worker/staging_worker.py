"""Staging worker: copies tiles from the image to the staged array. It computes nothing, so it loads no torch."""

from __future__ import annotations

import time
from collections import OrderedDict

from flows.worker.result import TileResult
from tiling.errors import ImageChangedError, StagingError, TilingError
from tiling.runs.run import Run
from tiling.runs.staging import StagedTiles, load_tile
from tiling.runs.unchanged_source import VerifiedSource
from tiling.storage.file_version import FileVersion
from tiling.storage.place import Place

RUNS_OPEN = 4
"""Tiles of several runs may come in turn."""


class StagingWorker:
    """Stages tiles of any runs."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[Place, FileVersion], tuple[Run, VerifiedSource, StagedTiles]] = OrderedDict()

    def stage(self, run_path: Place, indices: list[int]) -> list[TileResult]:
        """Stage tiles in order; one that can't be read is reported and the others go on.

        Raises:
            StagingError: the disk is full or not writable, which stops the run: no further tile would fare better.
            ImageChangedError: the image is another by now; what was staged before is of the run's own.
        """
        run, source, staged = self._open(run_path)
        return [_stage_one(run, source, staged, index) for index in indices]

    def _open(self, run_path: Place) -> tuple[Run, VerifiedSource, StagedTiles]:
        key = run_path, Run.stamp(run_path)  # a folder may hold another run by now: a slide took another's name
        if key not in self._runs:
            run = Run.open(run_path)
            self._runs[key] = run, run.open_verified(), run.open_staged()
        self._runs.move_to_end(key)
        while len(self._runs) > RUNS_OPEN:
            self._runs.popitem(last=False)[1][1].close()
        return self._runs[key]


def _stage_one(run: Run, source: VerifiedSource, staged: StagedTiles, index: int) -> TileResult:
    start = time.perf_counter()
    try:
        if not staged.holds(index):
            level, tile = run.card.image.level, run.plan.tile(index)
            staged.write(index, source.read(lambda image: load_tile(image, level, run.plan, tile)))
    except (StagingError, ImageChangedError):
        raise
    except (TilingError, OSError) as error:
        return TileResult(index, None, 0, {}, f"{type(error).__name__}: {error}")
    return TileResult(index, None, 0, {"stage": time.perf_counter() - start})
