"""Check that an image holds any data at all: searched from its coarsest level on, until some is found."""

from __future__ import annotations

from collections.abc import Iterator

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
    if not source.may_lack_data:
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
            return  # what can't be read is reported tile by tile
        if is_wanted:
            raise SourceError(
                f"{source.path} holds nothing but no data ({_said(source)}): there is nothing to segment; give another "
                "image, region or bands"
            )


def _said(source: ImageSource) -> str:
    message = [] if source.nodata is None else [f"nodata {source.nodata:g}"]
    message += ["its mask, alpha or unwritten segments"] if source.has_mask else []
    return ", ".join(message) or "NaN"


def _holds_data(source: ImageSource, index: int, box: Box) -> bool:
    _, held = source.read_present(index, box)
    return held is None or bool(held.any())


def _squares(level: Level) -> Iterator[Box]:
    """From the middle row outwards: images have no data at their edges first of all."""
    tops = sorted(range(0, level.height, _SQUARE_PX), key=lambda y: abs(y + _SQUARE_PX / 2 - level.height / 2))
    lefts = sorted(range(0, level.width, _SQUARE_PX), key=lambda x: abs(x + _SQUARE_PX / 2 - level.width / 2))
    for y in tops:
        for x in lefts:
            yield Box(y, x, min(y + _SQUARE_PX, level.height), min(x + _SQUARE_PX, level.width))
