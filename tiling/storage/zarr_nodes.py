"""Groups and arrays of a folder, opened and read without Zarr's event loop, which takes longer than the files do.

What is not of the simplest kind, or is damaged, is left to Zarr itself, which says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer
from zarr.core.group import AsyncGroup, GroupMetadata
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from tiling.storage.codec_settings import setting_text
from tiling.storage.place import Place, read_at, write_atomic
from tiling.storage.zarr_store import FolderZarr, zarr_at

ONE_CHUNK_BYTES = 128 * 1024
"""Arrays of fewer bytes are one chunk."""


def open_group(path: Place, *, read_only: bool) -> zarr.Group:
    """The group in a place; raises what Zarr raises where there is none."""
    if isinstance(path, Path) and (found := _parsed(path, "group")) is not None:
        store = FolderZarr(path, read_only=read_only)
        return zarr.Group(AsyncGroup(GroupMetadata.from_dict(found), store_path=StorePath(store, "")))
    return zarr.open_group(zarr_at(path), mode="r" if read_only else "r+", zarr_format=3)


def arrays_in(group: zarr.Group, names: Iterable[str]) -> list[zarr.Array[Any]]:
    """Arrays of a group by their names; raises what Zarr raises where one is missing or damaged."""
    return [_array_in(group, name) for name in names]


def read_list(path: Place) -> NDArray[Any]:
    """All of an array of one dimension; raises what Zarr raises where there is none."""
    found = _one_chunk(path) if isinstance(path, Path) else None
    return np.asarray(zarr.open_array(zarr_at(path), mode="r", zarr_format=3)[:]) if found is None else found


def write_list(path: Place, values: NDArray[Any], *, below: Place, synced: bool = True) -> None:
    """Write an array of one dimension, whose metadata comes last; from `below` on no link is followed.

    The files are those that Zarr makes.
    """
    files = _files_of(values)
    for name in sorted(files):
        write_atomic(path / name, files[name], below=below, synced=synced)


def _files_of(values: NDArray[Any]) -> dict[str, bytes]:
    """Files of an array by their names: a short one is one chunk, and its metadata that of another but for its length.

    Zarr takes two milliseconds for each.
    """
    if not 0 < values.nbytes < ONE_CHUNK_BYTES:
        return _made_by_zarr(values)
    metadata = json.loads(_metadata_of_one(values.dtype))
    metadata["shape"] = metadata["chunk_grid"]["configuration"]["chunk_shape"] = [values.size]
    files = {"zarr.json": json.dumps(metadata, indent=2).encode()}
    if values.any():  # a chunk of the fill value alone is none
        files["c/0"] = bytes(Zstd(level=0).encode(np.ascontiguousarray(values)))
    return files


@cache
def _metadata_of_one(dtype: np.dtype[Any]) -> bytes:
    return _made_by_zarr(np.ones(1, dtype))["zarr.json"]


def _made_by_zarr(values: NDArray[Any]) -> dict[str, bytes]:
    files: dict[str, Buffer] = {}
    zarr.create_array(MemoryStore(files), data=values, zarr_format=3)
    return {name: found.to_bytes() for name, found in files.items()}


def _array_in(group: zarr.Group, name: str) -> zarr.Array[Any]:
    store = group.store_path.store
    if isinstance(store, FolderZarr) and not group.store_path.path and group.metadata.consolidated_metadata is None:
        metadata = _array_metadata(store.root / name)
        if metadata is not None:
            return zarr.Array(cast("Any", AsyncArray(metadata, store_path=StorePath(store, name))))
    return cast("zarr.Array[Any]", group[name])


def _one_chunk(path: Path) -> NDArray[Any] | None:
    """The array's values where they are one chunk by the codecs that Zarr takes by default; else None."""
    metadata = _array_metadata(path)
    if metadata is None or len(metadata.shape) != 1 or metadata.storage_transformers:
        return None
    codecs, chunks = metadata.codecs, cast("Any", metadata.chunk_grid).chunk_shape
    if len(codecs) != 2 or not isinstance(codecs[0], BytesCodec) or not isinstance(codecs[1], ZstdCodec):
        return None
    dtype = metadata.dtype.to_native_dtype()
    if chunks[0] < metadata.shape[0] or dtype.kind not in "ui":
        return None
    try:
        data = Zstd().decode(read_at(path / metadata.encode_chunk_key((0,))))
    except (OSError, RuntimeError, ValueError):
        return None
    order = ">" if setting_text(codecs[0].endian) == "big" else "<"
    values = np.frombuffer(data, dtype.newbyteorder(order)).astype(dtype)
    return values[: metadata.shape[0]] if values.size == chunks[0] else None


def _array_metadata(path: Path) -> ArrayV3Metadata | None:
    try:
        return _made_of(read_at(path / "zarr.json"))
    except OSError:
        return None


@lru_cache(maxsize=64)
def _made_of(data: bytes) -> ArrayV3Metadata | None:
    """An array's metadata, which nobody changes: images of an archive have the same ones."""
    found = _checked(data, "array")
    try:
        return None if found is None else ArrayV3Metadata.from_dict(found)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _parsed(path: Path, kind: str) -> dict[str, Any] | None:
    """Metadata of a node of that kind; None where it is anything else."""
    try:
        return _checked(read_at(path / "zarr.json"), kind)
    except OSError:
        return None


def _checked(data: bytes, kind: str) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
        is_plain = found["zarr_format"] == 3 and found["node_type"] == kind and not found.get("consolidated_metadata")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if is_plain and (kind == "array" or isinstance(found.get("attributes"), dict)) else None
