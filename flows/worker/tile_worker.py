"""Tile worker: reads, computes and writes one tile. A plain class that Ray only wraps."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from flows.worker.model import local_bundle, model_of
from flows.worker.result import RecheckResult, TileResult
from flows.worker.staging_worker import RUNS_OPEN
from tiling.errors import DiskError, ImageChangedError, StagingError, TilingError
from tiling.plan import Tile, TilePlan
from tiling.runs.label_counts import tile_counts
from tiling.runs.mask import Mask
from tiling.runs.no_data import ALL_DATA, Coverage, NoDataCounts, unpack
from tiling.runs.probabilities import Probabilities
from tiling.runs.run import Run
from tiling.runs.staging import StagedTiles, load_tile
from tiling.runs.unchanged_source import VerifiedSource
from tiling.storage.file_version import FileVersion
from tiling.storage.place import Place
from unet_core.bounds import Edges
from unet_core.bundles.bundle import load_bundle
from unet_core.errors import BundleError, UnetCoreError
from unet_core.inference.predictor import OutputRegion, Precision, Prediction, Predictor
from unet_core.inference.tta import Tta

logger = logging.getLogger(__name__)

TILE_ERRORS = (TilingError, UnetCoreError, OSError)
"""What fails one tile and leaves the others alone. Anything else is a bug and stops the run."""


class TileWorker:
    """Labels tiles of any runs, from staged tiles or from the image itself, on one device.

    Several threads may call `process` at once: one computes while others read and write, so that the device
    never waits for a disk. Runs and models stay open from call to call.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._benches: OrderedDict[tuple[Place, FileVersion, bool], _OpenRun] = OrderedDict()
        self._opening = threading.Lock()

    def process(self, run_path: Place, index: int, *, staged: bool) -> TileResult:
        """Walk one tile: load it, label it, write its valid region as one whole shard.

        Raises:
            TilingError, UnetCoreError: the run or its model can't be opened, or the mask's disk is full, which no
                tile would survive; or the image is another by now. What goes wrong with this tile alone comes back as
                the result's reason.
        """
        bench = self._open(run_path, staged)
        tile = bench.run.plan.tile(index)
        seconds: dict[str, float] = {}
        try:
            start = time.perf_counter()
            packed_HWC = bench.load(tile)
            seconds["read"] = time.perf_counter() - start
            found = bench.labelled(tile, packed_HWC)
            seconds["compute"] = found.seconds
            start = time.perf_counter()
            # The labels last: the tile is done when they are there.
            kept: str | None = None
            if bench.probabilities is not None and found.probabilities is not None:
                kept = bench.probabilities.write(tile, found.probabilities)
            digest = bench.mask.write(tile, found.labels)
            reduced = bench.mask.pyramid.reduced_chunks(found.labels, bench.whole_levels)
            counts = tile_counts(found.labels)
            seconds["write"] = time.perf_counter() - start
        except (DiskError, ImageChangedError):
            raise
        except TILE_ERRORS as error:
            return TileResult(index, None, 0, seconds, f"{type(error).__name__}: {error}")
        if bench.staged is not None:
            bench.staged.discard(index)
        pixels = tile.core.intersect(bench.run.plan.image).area
        return TileResult(
            index, digest, pixels, seconds, probabilities=kept, empty=found.empty, counts=counts, reduced=reduced
        )

    def check(self, run_path: Place, core_px: int, index: int) -> RecheckResult:
        """Compute a tile again from the image, or one of a plan with another core, and compare it with the mask.

        Raises:
            TilingError, UnetCoreError: the image, the mask or the model can't be read.
        """
        bench = self._open(run_path, staged=False)
        assert bench.source is not None
        card, plan = bench.run.card, replace(bench.run.plan, core_px=core_px)
        tile = plan.tile(index)
        packed_HWC = bench.source.read(lambda image: load_tile(image, card.image.level, plan, tile))
        labels = bench.labelled(tile, packed_HWC, plan).labels
        differing = int(np.count_nonzero(labels != bench.mask.read(tile.valid)))
        box = tile.valid
        return RecheckResult((box.y0, box.x0, box.y1, box.x1), labels.size, differing)

    def _open(self, run_path: Place, staged: bool) -> _OpenRun:
        key = run_path, Run.stamp(run_path), staged  # a folder may hold another run by now
        with self._opening:
            if key not in self._benches:
                self._benches[key] = _OpenRun.open(run_path, staged, self._device, [*self._benches.values()])
            self._benches.move_to_end(key)
            while len(self._benches) > RUNS_OPEN:
                self._benches.popitem(last=False)[1].close()
            return self._benches[key]


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    """Labels, and probabilities if asked for, of one tile."""

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    seconds: float
    empty: NoDataCounts = ALL_DATA


@dataclass(frozen=True, slots=True)
class _OpenRun:
    """All that stays open for one run."""

    run: Run
    predictor: Predictor
    mask: Mask
    probabilities: Probabilities | None
    staged: StagedTiles | None
    source: VerifiedSource | None
    whole_levels: int

    @classmethod
    def open(cls, run_path: Place, staged: bool, device: str, others: list[_OpenRun]) -> _OpenRun:
        run = Run.open(run_path)
        run.expect_outline()  # now, and not tile by tile
        shared = next((other for other in others if _maths(other.run) == _maths(run)), None)
        mask = run.open_mask()
        return cls(
            run=run,
            predictor=shared.predictor if shared else _load_predictor(run, device),
            mask=mask,
            probabilities=run.open_probabilities(),
            staged=run.open_staged() if staged else None,
            source=None if staged else run.open_verified(),
            whole_levels=mask.pyramid.whole_levels,
        )

    def close(self) -> None:
        """Release the image's file; a thread that still reads from it opens it again."""
        if self.source is not None:
            self.source.close()

    def labelled(self, tile: Tile, packed_HWC: NDArray[np.generic], plan: TilePlan | None = None) -> _Labelled:
        """Label a tile's read as it was loaded; of another plan than the run's where one is given."""
        plan, fill = plan or self.run.plan, self.run.fill
        tile_HWC, held = (packed_HWC, None) if fill is None else unpack(packed_HWC, fill)
        coverage = None if held is None else Coverage.of(held, tile, plan)
        if coverage is not None and not coverage.held.any():
            found = self._nothing(tile)  # nothing that a network says of it would be kept
        else:
            found = self.predictor.run(tile_HWC, _region(plan, tile), probabilities=self.probabilities is not None)
        labels, probabilities = self.cut(found.labels, tile, plan), found.probabilities
        if probabilities is not None:
            probabilities = self.cut(probabilities, tile, plan)
        if coverage is None:
            return _Labelled(labels, probabilities, found.seconds)
        if probabilities is not None:
            probabilities = coverage.weighed(probabilities)
        outline, squares = self.run.outline, self.run.squares
        empty = coverage.counts(
            None if outline is None else ~outline.inside(tile.valid),
            None if squares is None or squares.cover(tile.core) else ~squares.inside(tile, plan),
        )
        return _Labelled(coverage.labelled(labels), probabilities, found.seconds, empty)

    def _nothing(self, tile: Tile) -> Prediction:
        classes = len(self.run.card.probabilities)
        kept = np.zeros((classes, *tile.valid.shape), np.uint8) if self.probabilities is not None else None
        return Prediction(np.zeros(tile.valid.shape, np.uint8), kept, 0.0)

    def cut(self, pixels: NDArray[np.uint8], tile: Tile, plan: TilePlan) -> NDArray[np.uint8]:
        """Background outside the polygons of the run's region and its squares of tissue, where it has some."""
        outline, squares = self.run.outline, self.run.squares
        if squares is not None:
            pixels = squares.cut(pixels, tile, plan)
        return pixels if outline is None else outline.cut(pixels, tile.valid)

    def load(self, tile: Tile) -> NDArray[np.generic]:
        """The tile's read: staged, or from the image where a worker that died had discarded it already."""
        level, plan = self.run.card.image.level, self.run.plan
        if self.staged is None:
            assert self.source is not None
            return self.source.read(lambda image: load_tile(image, level, plan, tile))
        try:
            return self.staged.read(tile.index)
        except StagingError as error:
            logger.warning("tile %d: %s; read from the image instead", tile.index, error)
            with self.run.open_verified() as source:
                return source.read(lambda image: load_tile(image, level, plan, tile))


def _region(plan: TilePlan, tile: Tile) -> OutputRegion:
    """Output region that is wanted of a tile's read."""
    needed, edges = plan.need(tile), plan.edges(tile)
    sides = Edges(edges.top, edges.bottom, edges.left, edges.right)
    return OutputRegion((needed.y0, needed.x0, needed.y1, needed.x1), sides)


def _maths(run: Run) -> tuple[object, ...]:
    """Key by which runs share a predictor."""
    card = run.card
    return card.model.digest, card.precision, card.tta, card.compiled, card.approximate


def _load_predictor(run: Run, device: str) -> Predictor:
    model = run.card.model
    with local_bundle(model_of(run)) as folder:
        bundle = load_bundle(folder)
    if bundle.digest != model.digest:
        raise BundleError(
            f"model {model_of(run)} has changed since the run began: two models would share one mask; "
            f"restore it, or start another run with another --out"
        )
    card = run.card
    return Predictor(
        bundle,
        precision=cast("Precision", card.precision),
        device=device,
        tta=cast("Tta", card.tta),
        compiled=card.compiled,
        approximate=card.approximate,
    )
