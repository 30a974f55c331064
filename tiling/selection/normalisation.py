"""One range of values for a whole image, so that brightness means the same in every tile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from tiling.errors import PlanError
from tiling.geometry import Box
from tiling.source import ImageSource, Level
from tiling.sources.present import present
from tiling.view import Stretch

Dtype = Literal["uint8", "uint16", "float32"]

_ENOUGH_PX = 1_000_000
_MOST_PX = 4_000_000
_PIECE_PX = 512
_PIECES_PER_SIDE = 16


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Range that was asked for: `LOW,HIGH`, the same for all bands, or `percentiles:P,Q`, of each band's own values."""

    low: float
    high: float
    of_percentiles: bool

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Read what a person wrote.

        Raises:
            PlanError: no two numbers in order, or percentiles below 0 or over 100.
        """
        kind, _, rest = text.rpartition(":")
        try:
            low, high = (float(part) for part in rest.split(","))
        except ValueError:
            low = high = float("nan")
        if kind not in {"", "percentiles"} or not (low < high and np.isfinite([low, high]).all()):
            raise PlanError(
                f"--normalise {text} gives no range: values would mean nothing; give LOW,HIGH such as 0,4095, or "
                f"percentiles:P,Q such as percentiles:1,99"
            )
        if kind and not (low >= 0 and high <= 100):
            raise PlanError(f"--normalise {text}: percentiles lie between 0 and 100, for example percentiles:1,99")
        return cls(low, high, bool(kind))

    def stretch(self, source: ImageSource, bands: tuple[int, ...], dtype: str) -> Stretch:
        """The ranges of an image's bands; percentiles are measured once, on a coarse level of the whole image.

        Raises:
            PlanError: a band whose percentiles are one value, so that there is no range.
            SourceError: the coarse level can't be read.
        """
        wanted = cast("Dtype", dtype)
        if not self.of_percentiles:
            return Stretch(low=(self.low,) * len(bands), high=(self.high,) * len(bands), dtype=wanted)
        samples = coarse_samples(source, bands)
        ranges = [_percentiles(values, (self.low, self.high)) for values in samples]
        for band, (low, high) in zip(bands, ranges, strict=True):
            if not low < high:
                raise PlanError(
                    f"band {source.bands[band]} of {source.path} has the value {low:g} at both percentiles "
                    f"{self.low:g} and {self.high:g}: there is no range to normalise; give --normalise LOW,HIGH"
                )
        return Stretch(low=tuple(low for low, _ in ranges), high=tuple(high for _, high in ranges), dtype=wanted)


def coarse_samples(source: ImageSource, bands: tuple[int, ...]) -> list[npt.NDArray[np.generic]]:
    """Values of each band of the coarsest level that has a million pixels; of a large one, thinned pieces on a grid.

    Those that are no data are left out.
    """
    fitting = [level for level in source.levels if level.height * level.width >= _ENOUGH_PX]
    level = fitting[-1] if fitting else source.levels[0]
    boxes = _pieces(level)
    step = max(1, math.isqrt(sum(box.area for box in boxes) // _MOST_PX))
    parts = [_held(source, level, box, step, bands) for box in boxes]
    return [np.concatenate([part[number] for part in parts]) for number in range(len(bands))]


def _held(
    source: ImageSource, level: Level, box: Box, step: int, bands: tuple[int, ...]
) -> list[npt.NDArray[np.generic]]:
    """Of each band every n-th value of a box along y and x that is data."""
    pixels = source.read(level.index, box)[::step, ::step, list(bands)]
    mask = source.read_mask(level.index, box) if source.has_mask else None
    held = present(pixels, source.nodata, None if mask is None else mask[::step, ::step])
    if held is None:
        return [pixels[..., number].ravel() for number in range(len(bands))]
    held = np.broadcast_to(held, pixels.shape)
    return [pixels[..., number][held[..., number]] for number in range(len(bands))]


def _pieces(level: Level) -> list[Box]:
    tall, wide = min(_PIECE_PX, level.height), min(_PIECE_PX, level.width)
    return [
        Box(y, x, min(y + tall, level.height), min(x + wide, level.width))
        for y in _starts(level.height)
        for x in _starts(level.width)
    ]


def _starts(side: int) -> list[int]:
    """Starts of pieces: side by side while they are few, else spread evenly over the side."""
    count = -(-side // _PIECE_PX)
    if count <= _PIECES_PER_SIDE:
        return [_PIECE_PX * index for index in range(count)]
    return [(side - _PIECE_PX) * index // (_PIECES_PER_SIDE - 1) for index in range(_PIECES_PER_SIDE)]


def _percentiles(values: npt.NDArray[np.generic], wanted: tuple[float, float]) -> tuple[float, float]:
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.percentile(values.astype(np.float64), wanted)
    return float(low), float(high)
