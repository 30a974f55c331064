"""Measurement of objects, block after block: any partition of the image in any order gives the same figures.

All that is kept are whole numbers and corners of hulls for each object; means and lengths are made of them at the end.
Work grows with the pixels of objects, not with the background between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.objects import intensities, moments
from tiling.objects.hull import Hulls
from tiling.objects.object_block import MARGIN, ObjectBlock
from tiling.objects.parts import Columns, Part, column
from tiling.objects.perimeter import STEPS, Outlines
from tiling.objects.spans import Index, RawSpans, Spans

JOINED_AT = 1 << 15
"""Objects that wait before they are added to those that are known."""
BATCH = 1 << 16
"""Objects that are finished at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Channels that hold the probability of an object's class.

    Attributes:
        class_of: the class of each object, by its identifier; of 0, which is none, anything.
        channel_of: the channel of each class; -1 where none was kept.
    """

    class_of: NDArray[np.uint8]
    channel_of: NDArray[np.int64]

    def of(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The channel of each object."""
        return self.channel_of[self.class_of[ids]]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Figures of whole objects, ascending by identifier, in pixels of the label image.

    Attributes:
        ids: of the objects.
        pixels: that each covers.
        box: `(n, 4)` of y0, x0, y1, x1, half-open.
        shape: its ellipse.
        perimeter: as scikit-image's.
        convex_pixels: of its convex hull, as scikit-image's `area_convex`.
        means: `(n, band)`, as all that follow.
        least: of each band.
        most: of each band.
        deviations: of the population, as NumPy's `std`.
        probability: mean of its class, 0 to 1; None where none were kept, NaN where its class has none.
        touches_border: whether it reaches the image's border.
        touches_missing: whether it shares a pixel's edge with one of which nothing is known.
    """

    ids: NDArray[np.int32]
    pixels: NDArray[np.int64]
    box: NDArray[np.int64]
    shape: moments.Shape
    perimeter: NDArray[np.float64]
    convex_pixels: NDArray[np.int64]
    means: NDArray[np.float64]
    least: NDArray[Any]
    most: NDArray[Any]
    deviations: NDArray[np.float64]
    probability: NDArray[np.float64] | None
    touches_border: NDArray[np.bool_]
    touches_missing: NDArray[np.bool_]

    def __len__(self) -> int:
        return self.ids.size

    @classmethod
    def none(cls, bands: int) -> Measured:
        """No objects."""
        whole, real, flags = np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_)
        values, shape = np.empty((0, bands)), moments.Shape(np.empty((0, 2)), np.empty((0, 3)))
        box = np.empty((0, 4), np.int64)
        ids = np.empty(0, np.int32)
        return cls(ids, whole, box, shape, real, whole, values, values, values, values, None, flags, flags)

    @property
    def solidity(self) -> NDArray[np.float64]:
        """The share of its convex hull that each object fills."""
        return self.pixels / self.convex_pixels


def measure_block(block: ObjectBlock, channels: Channels | None = None) -> Part | None:
    """Measure what a block adds to its objects; None of one without any.

    A pure function, so that blocks may be measured anywhere; what it gives is small and pickles.
    """
    labels = np.ascontiguousarray(block.labels)
    all_ = RawSpans.of(labels)
    raw = all_.clipped(labels.shape, 0)
    if not raw.ids.size:
        return None
    spans = Spans.of(block, raw)
    ids = spans.ids
    near = all_.clipped(labels.shape, 1)
    outlines = Outlines.of(labels, near, Index.of(ids, labels.size))
    columns = [*moments.summed(spans).all(), column("steps", "sum", outlines.counts(ids.size))]
    if block.missing is not None:
        columns.append(column("touches", "or", outlines.touching(block.missing, ids.size)))
    if block.bands is not None or block.probabilities is not None:
        columns += _values(block, raw, spans, channels)
    return Part(ids, Columns(columns), Hulls.of(spans))


def _values(block: ObjectBlock, raw: RawSpans, spans: Spans, channels: Channels | None) -> Iterator[Any]:
    """Columns of bands and probabilities."""
    places = raw.places(block.shape[1], MARGIN)
    counts = raw.stops - raw.starts
    begins = counts.cumsum() - counts
    if block.bands is not None:
        bands = block.bands.reshape(-1, block.bands.shape[2])
        for number in range(bands.shape[1]):
            values = bands[:, number][places]
            yield from intensities.summed(f"band{number}", values, begins, spans.order, spans.first).all()
    if block.probabilities is not None and channels is not None:
        flat = block.probabilities.reshape(block.probabilities.shape[0], -1)
        of_pixel = np.repeat(channels.of(raw.ids), counts)
        values = np.where(of_pixel >= 0, flat[np.maximum(of_pixel, 0), places], 0).astype(np.int64)
        sums = np.add.reduceat(np.add.reduceat(values, begins)[spans.order], spans.first)
        yield column("probability", "sum", sums)


class Measurement:
    """Objects of an image, measured as its blocks come.

    Args:
        extent: height and width of the image.
        dtype: of its bands; None where none are measured.
        bands: how many there are.
        channels: where an object's probability is found; None where none were kept.
    """

    def __init__(
        self,
        extent: tuple[int, int],
        dtype: np.dtype[Any] | None = None,
        bands: int = 0,
        channels: Channels | None = None,
    ) -> None:
        self._extent, self._channels = extent, channels
        self._dtype, self._bands = dtype, bands if dtype is not None else 0
        self._known: Part | None = None
        self._waiting: list[Part] = []
        self._count = 0

    def add(self, block: ObjectBlock) -> None:
        """Measure a block."""
        part = measure_block(block, self._channels)
        if part is not None:
            self.add_part(part)

    def add_part(self, part: Part) -> None:
        """Take in a block that was measured elsewhere."""
        self._waiting.append(part)
        self._count += len(part)
        if self._count > max(JOINED_AT, 0 if self._known is None else len(self._known)):
            self._join()

    def _join(self) -> None:
        parts = self._waiting if self._known is None else [self._known, *self._waiting]
        self._waiting, self._count = [], 0
        self._known = Part.joined(parts) if parts else None

    def finished(self, y: int) -> Iterator[Measured]:
        """Objects of which no pixel lies in row `y` or below, where all blocks above were added; they are forgotten."""
        self._join()
        if self._known is not None:
            done, rest = self._known.split(self._known.columns["y1"] < y)
            self._known = rest if len(rest) else None
            yield from self._finish(done)

    def rest(self) -> Iterator[Measured]:
        """All other objects, once every block was added."""
        self._join()
        if self._known is not None:
            known, self._known = self._known, None
            yield from self._finish(known)

    def _finish(self, part: Part) -> Iterator[Measured]:
        for first in range(0, len(part), BATCH):
            wanted = np.zeros(len(part), np.bool_)
            wanted[first : first + BATCH] = True
            yield self._of(part if len(part) <= BATCH else part.split(wanted)[0])

    def _of(self, part: Part) -> Measured:
        columns, n = part.columns, part.columns["pixels"]
        box = np.column_stack([columns[name] for name in ("y0", "x0", "y1", "x1")])
        height, width = self._extent
        edge = (box[:, 0] == 0) | (box[:, 1] == 0) | (box[:, 2] == height) | (box[:, 3] == width)
        means, deviations = np.empty((2, len(part), self._bands))
        for number in range(self._bands):
            assert self._dtype is not None
            found = intensities.mean_and_deviation(f"band{number}", columns, n, self._dtype)
            means[:, number], deviations[:, number] = found
        extremes = [self._extreme(part, name) for name in ("min", "max")]
        return Measured(
            part.ids,
            n,
            box,
            moments.Shape.of(columns),
            columns["steps"] @ STEPS,
            part.hulls.areas(part.ids, box[:, 0], box[:, 2]),
            means,
            extremes[0],
            extremes[1],
            deviations,
            self._probability(part),
            edge,
            columns.get("touches", np.zeros(len(part), np.bool_)),
        )

    def _extreme(self, part: Part, name: str) -> NDArray[Any]:
        if not self._bands:
            return np.empty((len(part), 0))
        return np.column_stack([part.columns[f"band{number}.{name}"] for number in range(self._bands)])

    def _probability(self, part: Part) -> NDArray[np.float64] | None:
        if self._channels is None or "probability" not in part.columns:
            return None
        mean = part.columns["probability"] / (255 * part.columns["pixels"])
        return np.where(self._channels.of(part.ids) >= 0, mean, np.nan)


def measured(
    blocks: Iterable[ObjectBlock], extent: tuple[int, int], channels: Channels | None = None
) -> Sequence[Measured]:
    """All objects of blocks that have the same bands, in batches, ascending by identifier."""
    measurement: Measurement | None = None
    for block in blocks:
        if measurement is None:
            bands = block.bands
            kind = (None, 0) if bands is None else (bands.dtype, bands.shape[2])
            measurement = Measurement(extent, *kind, channels)
        measurement.add(block)
    return [] if measurement is None else [*measurement.rest()]
