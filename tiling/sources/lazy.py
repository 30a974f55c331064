"""Level of an image as a dask array, read chunk by chunk when it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import dask.array as da
import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.sources.facts import Level


class _Readable(Protocol):
    @property
    def bands(self) -> tuple[str, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.generic]: ...

    @property
    def levels(self) -> tuple[Level, ...]: ...

    def read(self, level: int, box: Box) -> npt.NDArray[np.generic]: ...


def lazy_level(source: _Readable, level: int, chunk_px: tuple[int, int]) -> da.Array:
    """The level `(y, x, band)` in chunks of that height and width; the last of a row or column may be smaller."""
    whole = source.levels[level]
    chunks = (*map(_split, (whole.height, whole.width), chunk_px), (len(source.bands),))
    empty = np.empty((0, 0, 0), source.dtype)
    return cast("da.Array", da.map_blocks(_read_chunk, source, level, chunks=chunks, dtype=source.dtype, meta=empty))


def _split(length: int, chunk: int) -> tuple[int, ...]:
    whole, rest = divmod(length, chunk)
    return (chunk,) * whole + ((rest,) if rest else ())


def _read_chunk(source: _Readable, level: int, block_info: Mapping[Any, Any] | None = None) -> npt.NDArray[np.generic]:
    """One chunk; dask passes its place in `block_info`."""
    if not block_info:
        return np.empty((0, 0, 0), source.dtype)
    (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
    return source.read(level, Box(y0, x0, y1, x1))
