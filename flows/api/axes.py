"""Order of an array's axes: `(y, x, band)`. Networks of torch take bands first, images don't."""

from __future__ import annotations

from typing import Any

from flows.config.run import SegmentConfig
from flows.run.preflight import bands_needed
from tiling.errors import SourceError

BAND_NAMES = {"band", "bands", "c", "channel", "channels"}
ROW_NAMES = {"y", "row", "rows", "lat", "latitude", "northing"}
COLUMN_NAMES = {"x", "col", "cols", "column", "columns", "lon", "longitude", "easting"}
MUCH_LESS = 8
"""Bands are so many times fewer than rows and columns, where an array's axes have no names."""


def expect_bands_last(array: Any, config: SegmentConfig) -> None:
    """Refuse an array whose axes are in another order: its rows would be taken for columns or bands.

    Raises:
        SourceError: how to move its axes.
    """
    shape: tuple[int, ...] = tuple(getattr(array, "shape", ()))
    names = [str(each) for each in getattr(array, "dims", ())]
    if names:
        _expect_named(shape, names)
        return
    if len(shape) != 3:
        return
    first, rows, columns = shape
    is_first = first * MUCH_LESS <= min(rows, columns) and columns != bands_needed(config)
    if is_first and _largest(config.bands) <= first:
        raise SourceError(
            f"an array of shape {shape} has its bands first, and an image is (y, x, band): {first} rows of {columns} "
            f"bands would be segmented; move its axes with np.moveaxis(array, 0, -1)"
        )


def _expect_named(shape: tuple[int, ...], names: list[str]) -> None:
    """Refuse axes that are named in another order, as xarray names them."""
    rows, columns = (next((name for name in names if name.lower() in known), "") for known in (ROW_NAMES, COLUMN_NAMES))
    wanted = [*names[1:], names[0]] if names[0].lower() in BAND_NAMES else names
    if rows and columns:
        wanted = [rows, columns, *(name for name in names if name not in {rows, columns})]
    if names == wanted:
        return
    others = [name for name in wanted[2:] if name.lower() not in BAND_NAMES]
    remedy = f"move its axes with array.transpose({', '.join(map(repr, wanted))})"
    if others:
        remedy = f"take one of its {others[0]} with array.isel({others[0]}=0)"
    raise SourceError(
        f"an array of shape {shape} has the axes ({', '.join(names)}), and an image is (y, x) or (y, x, band); {remedy}"
    )


def _largest(bands: str | None) -> int:
    """The largest number among the bands that were named."""
    return max((int(each) for each in (bands or "").split(",") if each.strip().isdecimal()), default=0)
