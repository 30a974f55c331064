"""An array in memory, or one that dask computes, as an OME-Zarr image that is read like any other source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr

from tiling.errors import RunError, SourceError
from tiling.geometry import Box
from tiling.runs.ome_metadata import array_metadata
from tiling.runs.pyramid_metadata import is_made, open_group
from tiling.storage.disk import expect_no_link
from tiling.storage.place import Place, disk_errors
from tiling.storage.zarr_store import zarr_at

if TYPE_CHECKING:
    import dask.array as da

    Batch = list[tuple[Box, da.Array]]

ARRAY_NAME = "image.ome.zarr"
"""Where a run's folder holds the array that it segments."""

_SIDE_PX, _LEAST_PX = 1024, 128
_MOST_CHUNK_BYTES = 64 * 2**20
_AT_ONCE_BYTES = 256 * 2**20

Notify = Callable[[int, int], None]
"""Hears how many chunks are written, of how many."""


def write_array(array: object, place: Place, notify: Notify) -> None:
    """Write an array as an image, or hold it against the one that is there; a piece at a time.

    At most a quarter of a gigabyte of it is in memory, and what dask needs to compute that. The metadata comes last:
    an image that has it is whole.

    Args:
        array: `(y, x)` or `(y, x, band)`: NumPy, dask, xarray, Zarr, or another that dask takes for an array.
        place: of the image.
        tell: hears how far it is.

    Raises:
        SourceError: no image, or masked pixels.
        RunError: another one is there.
        DiskError: the disk is full or can't be written.
        LinkError: the place is a link.
    """
    image = _as_image(array)
    if isinstance(place, Path):
        expect_no_link(place)
    known = _opened(place) if is_made(place) else None
    if known is not None:
        _expect_same(known, image, place, notify)
        return
    height, width, bands = _shape(image)
    chunks = bands, *_grid(image)
    with disk_errors(place):
        group = zarr.open_group(zarr_at(place), mode="w", zarr_format=3)
        stored = group.create_array(
            "0",
            shape=(bands, height, width),
            chunks=chunks,
            dtype=image.dtype,
            dimension_names=("c", "y", "x"),
            config={"write_empty_chunks": True},  # an array without any chunk is taken for a damaged one
        )
    for batch in _batches(image, notify):
        for (box, _), pixels in zip(batch, _computed(batch), strict=True):
            with disk_errors(place):
                stored[:, *box.slices] = pixels.transpose(2, 0, 1)
    with disk_errors(place):
        group.attrs["ome"] = array_metadata()


def _as_image(array: object) -> da.Array:
    """`(y, x, band)` in chunks that hold every band and, but for the last ones, are of one size."""
    import dask.array as da  # every run knows this module; few have an array

    shown = "None" if array is None else f"an object of type {type(array).__name__}"
    try:
        if not hasattr(array, "chunks") and not isinstance(getattr(array, "dtype", None), np.dtype):
            array = np.asarray(array)  # of torch, Pillow and lists: their types mean nothing to dask
        if isinstance(array, np.ndarray):
            found = da.from_array(array, chunks=cast("Any", -1), name=False)  # with a name, dask would hash all of it
        else:
            found = da.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SourceError(
            f"an object of type {type(array).__name__} can't be taken for an array ({' '.join(str(error).split())}); "
            f"give an array (y, x) or (y, x, band), or a path"
        ) from error
    if found.ndim == 0:
        raise SourceError(f"{shown} is no image: give a path, a URL, or an array (y, x) or (y, x, band)")
    if 0 in found.shape:
        raise SourceError(f"an array of shape {found.shape} is no image, since it holds no pixels: give one that does")
    if found.ndim not in {2, 3} or any(math.isnan(side) for side in found.shape):
        raise SourceError(
            f"an array of shape {found.shape} is no image: (y, x) or (y, x, band) of known sides is needed; move its "
            f"axes, take one plane of it, or let dask compute its chunk sizes"
        )
    if found.dtype.kind not in "uif":
        raise SourceError(f"an array of type {found.dtype} is no image: integers and floats are read; give .astype()")
    found = found.astype(found.dtype.newbyteorder("="))
    if found.ndim == 2:
        found = found[:, :, np.newaxis]
    return found.rechunk((*_grid(found), -1))


def _grid(image: da.Array) -> tuple[int, int]:
    """The array's own chunks where they make a good file, so that none is computed twice; else squares."""
    tall, wide, _ = cast("tuple[tuple[int, ...], ...]", image.chunks)
    pixel_bytes = image.shape[2] * image.dtype.itemsize
    is_even = all(set(sides[:-1]) <= {sides[0]} and sides[-1] <= sides[0] for sides in (tall, wide))
    is_square = min(tall[0], wide[0]) >= _LEAST_PX and max(tall[0], wide[0]) <= 4 * _SIDE_PX
    if is_even and is_square and tall[0] * wide[0] * pixel_bytes <= _MOST_CHUNK_BYTES:
        return tall[0], wide[0]
    side = min(_SIDE_PX, max(_LEAST_PX, 2 ** int(math.log2(_MOST_CHUNK_BYTES / pixel_bytes) / 2)))
    return min(side, _shape(image)[0]), min(side, _shape(image)[1])


def _shape(image: da.Array) -> tuple[int, int, int]:
    return cast("tuple[int, int, int]", image.shape)


def _batches(image: da.Array, notify: Notify) -> Iterator[Batch]:
    """Chunks that are computed together: neighbours of one row, as what they share is then computed once."""
    tall, wide, _ = cast("tuple[tuple[int, ...], ...]", image.chunks)
    chunk_bytes = tall[0] * wide[0] * image.shape[2] * image.dtype.itemsize
    at_once = max(1, _AT_ONCE_BYTES // chunk_bytes)
    total, done = len(tall) * len(wide), 0
    notify(0, total)
    for row in range(len(tall)):
        for first in range(0, len(wide), at_once):
            cols = range(first, min(first + at_once, len(wide)))
            yield [(_box(tall, wide, row, col), cast("Any", image).blocks[row, col]) for col in cols]
            done += len(cols)
            notify(done, total)


def _box(tall: Sequence[int], wide: Sequence[int], row: int, col: int) -> Box:
    y, x = row * tall[0], col * wide[0]
    return Box(y, x, y + tall[row], x + wide[col])


def _computed(batch: Batch) -> tuple[Any, ...]:
    """By whatever scheduler the caller's dask has; the pixels are written in this process.

    Raises:
        SourceError: pixels that are masked: what lies below a mask would be segmented as if it were the image.
    """
    import dask

    found = cast("tuple[Any, ...]", dask.compute(*(pixels for _, pixels in batch)))
    if any(np.ma.is_masked(pixels) for pixels in found):
        raise SourceError(
            "the array has masked pixels, and an array's mask isn't kept: give .astype('float32').filled(np.nan), "
            "whose NaN is no data, or the path of the file that it was read from"
        )
    return found


def _opened(place: Place) -> zarr.Array[Any]:
    return cast("zarr.Array[Any]", open_group(place, "image", read_only=True)["0"])


def _expect_same(known: zarr.Array[Any], image: da.Array, place: Place, notify: Notify) -> None:
    """Hold an array against the one that a run began with.

    Raises:
        RunError: another shape or type, or a pixel that differs.
    """
    height, width, bands = _shape(image)
    if known.shape != (bands, height, width) or known.dtype != image.dtype:
        differs = f"{known.shape[1:]} px of {known.shape[0]} {known.dtype} there, {height, width} px of {bands} "
        raise RunError(_another(place, f"{differs}{image.dtype} given"))
    nan = image.dtype.kind == "f"
    for batch in _batches(image, notify):
        for (box, _), pixels in zip(batch, _computed(batch), strict=True):
            there = np.asarray(known[:, *box.slices]).transpose(1, 2, 0)
            if not np.array_equal(there, pixels, equal_nan=nan):
                raise RunError(_another(place, f"pixels differ in {box}"))


def _another(place: Place, how: str) -> str:
    return (
        f"{place} holds another array ({how}): mixing two images would mix their labels; choose another out, or give "
        f"the array that the run began with"
    )
