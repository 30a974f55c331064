"""Check that a Zarr array's chunks are there under the keys that its metadata implies.

A chunk that isn't there holds the fill value: of an array whose chunks lie under other keys, all would be empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import zarr
from obstore.exceptions import BaseError
from zarr.abc.store import Store
from zarr.core.sync import sync

from tiling.errors import SourceError

_MOST_ASKED = 64
"""Chunks that are asked for one by one where nothing can be listed."""


def expect_chunks(store: Store, path: str, array: zarr.Array[Any], *, lists: bool) -> None:
    """Refuse an array of which no chunk is found.

    Raises:
        SourceError: there is none. A store that lists nothing is asked for the first chunks alone, and believed then.
    """
    sides = array.shards or array.chunks
    grid = tuple(-(-length // side) for length, side in zip(array.shape, sides, strict=True))
    key_of = cast("Callable[[tuple[int, ...]], str]", cast("Any", array.metadata).encode_chunk_key)
    first = key_of((0,) * len(grid))
    if not sync(_is_there(store, path, key_of, grid, lists=lists)):
        raise SourceError(
            f"no chunk of array {path!r} is there under the keys that its metadata says (the first would be "
            f"{path}/{first}): all of it would be empty; copy it again, or correct its dimension_separator"
        )


async def _is_there(
    store: Store, path: str, key_of: Callable[[tuple[int, ...]], str], grid: tuple[int, ...], *, lists: bool
) -> bool:
    if await store.exists(f"{path}/{key_of((0,) * len(grid))}"):
        return True
    if lists:
        try:
            async for key in store.list_prefix(f"{path}/"):
                if _is_chunk(key, path, key_of, grid):
                    return True
        except (BaseError, OSError):  # a store that doesn't let everybody list
            pass
        else:
            return False
    for number, place in enumerate(np.ndindex(*grid)):
        if number == _MOST_ASKED:
            return True
        if await store.exists(f"{path}/{key_of(place)}"):
            return True
    return False


def _is_chunk(key: str, path: str, key_of: Callable[[tuple[int, ...]], str], grid: tuple[int, ...]) -> bool:
    """True if a key is that of a chunk of the grid: its numbers, read from the end, give the very same key."""
    name = key.removeprefix(f"{path}/")
    numbers = [int(part) for part in name.replace("/", ".").split(".") if part.isdecimal() and len(part) < 12]
    place = tuple(numbers[-len(grid) :])
    inside = len(place) == len(grid) and all(a < b for a, b in zip(place, grid, strict=True))
    return inside and key_of(place) == name
