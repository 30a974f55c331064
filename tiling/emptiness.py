"""Whether an image holds any data at all: looked for from its coarsest level on, until some is found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import ImageSource, Level

_SQUARE_PX = 1024
_MOST_SQUARES = 400
"""Of one level; what is larger is not searched to its end, and never refused."""


def expect_data(source: ImageSource, index: int) -> None:
    """Refuse an image of which a level holds nothing but nodata, NaN or what its mask leaves out.

    Raises:
        SourceError: no pixel of the level holds data.
    """
    if source.nodata is None and not source.has_mask and source.dtype.kind != "f":
        return
    for level in reversed(source.levels[index:]):
        squares = list(_squares(level))
        is_wanted = level.index == index
        if len(squares) > _MOST_SQUARES:
            return
        try:
            if any(_holds_data(source, level.index, box) for box in squares):
                return
        except SourceError:
            return  # what can't be read is told tile by tile
        if is_wanted:
            raise SourceError(
                f"{source.path} holds nothing but no data ({_said(source)}): there is nothing to segment; give another "
                "image, region or bands"
            )


def _said(source: ImageSource) -> str:
    told = [] if source.nodata is None else [f"nodata {source.nodata:g}"]
    told += ["its mask, alpha or unwritten segments"] if source.has_mask else []
    return ", ".join(told) or "NaN"


def _holds_data(source: ImageSource, index: int, box: Box) -> bool:
    pixels = source.read(index, box)
    held = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, np.bool_)
    if source.nodata is not None and not np.isnan(source.nodata):
        held &= pixels != _as_stored(source.nodata, pixels.dtype)
    mask = source.read_mask(index, box) if source.has_mask else None
    return bool((held if mask is None else held & mask[..., np.newaxis]).any())


def _as_stored(value: float, dtype: np.dtype[np.generic]) -> np.generic | float:
    """The value as pixels of that type have it; of an integer type that can't, as it is, so that no pixel is it."""
    return dtype.type(value) if dtype.kind == "f" else value


def _squares(level: Level) -> Iterator[Box]:
    """From the middle row outwards: images have no data at their edges first of all."""
    tops = sorted(range(0, level.height, _SQUARE_PX), key=lambda y: abs(y + _SQUARE_PX / 2 - level.height / 2))
    lefts = sorted(range(0, level.width, _SQUARE_PX), key=lambda x: abs(x + _SQUARE_PX / 2 - level.width / 2))
    for y in tops:
        for x in lefts:
            yield Box(y, x, min(y + _SQUARE_PX, level.height), min(x + _SQUARE_PX, level.width))
