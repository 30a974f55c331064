"""Blocks of a run's objects, with the image and the probabilities under them, measured side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.objects.blocks import Block, BlockGrid, in_order
from tiling.objects.measure import Channels, Measured, Measurement, measure_block
from tiling.objects.object_block import MARGIN, ObjectBlock
from tiling.runs.mask import NOT_PREDICTED

if TYPE_CHECKING:
    from tiling.export.finished import Finished
    from tiling.objects.image import ObjectImage
    from tiling.objects.parts import Part

_WORTH_CUTTING = 0.9
"""The share of a block's columns from which on all of them are measured."""


def measured_objects(finished: Finished, objects: ObjectImage) -> Iterator[Measured]:
    """Every numbered object of a run once, in batches, in the order in which they end."""
    return RunObjects(finished, objects, objects.grid).measured()


@dataclass(frozen=True, eq=False)
class RunObjects:
    """The objects of a finished run.

    Attributes:
        finished: the run.
        objects: its numbered objects.
        grid: the blocks that are measured.
    """

    finished: Finished
    objects: ObjectImage
    grid: BlockGrid

    @property
    def has_bands(self) -> bool:
        """True if a pixel of the mask is one of the image: else its values are measured of none."""
        return self.finished.run.plan.grid.is_own

    def measured(self) -> Iterator[Measured]:
        """Every object once, in batches, in the order in which they end."""
        source, channels = self.finished.source, self._channels()
        bands = len(source.bands) if self.has_bands else 0
        measurement = Measurement(self.grid.shape, source.dtype if bands else None, bands, channels)

        def work(block: Block) -> Part | None:
            under = self.block(block.box)
            return None if under is None else measure_block(under, channels)

        for block, part in in_order(work, self.grid, max(1, self.finished.threads)):
            if part is not None:
                measurement.add_part(part)
            if block.col == self.grid.counts[1] - 1:
                yield from measurement.finished(block.box.y1)
        yield from measurement.rest()

    def block(self, box: Box) -> ObjectBlock | None:
        """Measured part of a box: the one that holds objects; None where there are none."""
        around = box.expand(MARGIN, MARGIN, MARGIN, MARGIN)
        seen = around.intersect(Box(0, 0, *self.grid.shape))
        at = seen.relative_to(around).slices
        if seen == around:
            labels = self.objects.read(seen)
        else:
            labels = np.zeros(around.shape, np.int32)
            labels[at] = self.objects.read(seen)
        inner = labels[MARGIN:-MARGIN, MARGIN:-MARGIN]
        part = _filled(inner)
        if part is None:
            return None
        wide = part.expand(0, 2 * MARGIN, 0, 2 * MARGIN).slices
        here = part.translate(box.y0, box.x0)
        kept = self.finished.probabilities
        missing = None
        if self._may_lack_some:
            missing = np.zeros(around.shape, np.bool_)
            missing[at] = self.finished.mask.read(seen) == NOT_PREDICTED
            missing = missing[wide]
        return ObjectBlock(
            (here.y0, here.x0),
            labels[wide],
            self._bands(here, inner[part.slices]) if self.has_bands else None,
            None if kept is None else kept.read(here),
            missing,
        )

    @property
    def _may_lack_some(self) -> bool:
        state = self.finished.state
        return bool(state.failed or state.damaged) or self.finished.run.fill is not None

    def _bands(self, box: Box, labels: NDArray[np.int32]) -> NDArray[Any]:
        """Pixels of the image; where some can't be decoded, those of the tiles with objects."""
        source, level = self.finished.source, self.finished.run.card.image.level
        try:
            return source.read(level, box)
        except SourceError:
            core = self.finished.run.plan.core_px
            tiles = [each.box.intersect(box) for each in BlockGrid(self.grid.shape, (core, core)).touching(box)]
            held = [each for each in tiles if labels[each.relative_to(box).slices].any()]
            if len(held) == len(tiles):
                raise
            pixels = np.zeros((*box.shape, len(source.bands)), source.dtype)
            for each in held:
                pixels[each.relative_to(box).slices] = source.read(level, each)
            return pixels

    def _channels(self) -> Channels | None:
        """Channel of each class's probability; None where none were kept."""
        run = self.finished.run
        if not run.card.probabilities:
            return None
        kept = [item.name for item in run.card.probabilities]
        of_class = [kept.index(item.name) if item.name in kept else -1 for item in run.card.model.classes]
        channels = np.full(256, -1, np.int64)
        channels[: len(of_class)] = of_class
        return Channels(self.objects.classes, channels)


def _filled(labels: NDArray[np.int32]) -> Box | None:
    """The part that holds objects; rows as they are where they nearly are that: so they needn't be copied."""
    rows, cols = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
    if not rows.size:
        return None
    left, right = int(cols[0]), int(cols[-1]) + 1
    if right - left > _WORTH_CUTTING * labels.shape[1]:
        left, right = 0, labels.shape[1]
    return Box(int(rows[0]), left, int(rows[-1]) + 1, right)
