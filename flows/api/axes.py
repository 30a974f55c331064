"""Order of an array's axes: `(y, x, band)`. Networks of torch take bands first, images don't."""

from __future__ import annotations

from typing import Any

from flows.config.run import SegmentConfig
from flows.run.preflight import bands_needed
from tiling.errors import SourceError

BAND_NAMES = {"band", "bands", "c", "channel", "channels"}
MUCH_LESS = 8
"""Bands are so many times fewer than rows and columns, where an array's axes have no names."""


def expect_bands_last(array: Any, config: SegmentConfig) -> None:
    """Refuse an array whose bands come first; its rows would be taken for an image's whole height.

    Raises:
        SourceError: how to move its axes.
    """
    shape: tuple[int, ...] = tuple(getattr(array, "shape", ()))
    names = [str(each) for each in getattr(array, "dims", ())]
    if len(shape) != 3:
        return
    first, rows, columns = shape
    if names:
        is_first = names[0].lower() in BAND_NAMES
    else:
        is_first = first * MUCH_LESS <= min(rows, columns) and columns != bands_needed(config)
        is_first = is_first and _largest(config.bands) <= first
    if is_first:
        named = ", ".join(map(repr, [*names[1:], *names[:1]]))
        remedy = f"array.transpose({named})" if names else "np.moveaxis(array, 0, -1)"
        raise SourceError(
            f"an array of shape {shape} has its bands first, and an image is (y, x, band): {shape[0]} rows of "
            f"{shape[2]} bands would be segmented; move its axes with {remedy}"
        )


def _largest(bands: str | None) -> int:
    """The largest number among the bands that were named."""
    return max((int(each) for each in (bands or "").split(",") if each.strip().isdecimal()), default=0)
