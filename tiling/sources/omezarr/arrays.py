"""The arrays of an OME-Zarr: their metadata held against limits, and a store that refuses chunks that would burst.

Zarr 2 and 3 are told apart by their metadata's own file. Only codecs whose output is bounded before they run are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile, ZipFile

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore, ZipStore

from tiling.errors import SourceError
from tiling.sources.claims import expect_modest
from tiling.sources.limits import MAX_DECODED_BYTES, MAX_ENCODED_BYTES, MAX_SIDE_PX, MAX_XML_BYTES, one_line
from tiling.sources.omezarr.chunk_keys import expect_chunks
from tiling.sources.omezarr.metadata import Document, Fetch, parse
from tiling.storage.place import Place
from tiling.storage.zarr_store import zarr_at

_CODECS = frozenset({"bytes", "transpose", "blosc", "zstd", "gzip", "crc32c", "sharding_indexed"})
_COMPRESSORS = frozenset({"blosc", "zstd", "gzip", "zlib"})
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


class GuardedStore(WrapperStore[Store]):
    """A store whose files are looked at before they are held or unpacked. `lists`: whether it can say what it holds.

    Raises:
        SourceError: a file that is larger than any chunk may be, or unpacks to more.
    """

    lists = True

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if byte_range is None:
            await self._expect_bounded(key)
        return _looked_at(key, await self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        wanted = list(key_ranges)
        found = await self._store.get_partial_values(prototype, wanted)
        return [_looked_at(key, buffer) for (key, _), buffer in zip(wanted, found, strict=True)]

    async def _expect_bounded(self, key: str) -> None:
        """Compare a file's length with the limits; that of an object would cost a request more for every chunk, and
        those in a zip file are known."""
        if not isinstance(self._store, LocalStore):
            return
        try:
            size_bytes = await self._store.getsize(key)
        except (FileNotFoundError, KeyError):
            return
        limit = MAX_XML_BYTES if key.endswith(_METADATA) else MAX_ENCODED_BYTES
        if size_bytes > limit:
            raise SourceError(f"{key} of {size_bytes} bytes is over {limit}; write smaller chunks")


def _looked_at(key: str, buffer: Buffer | None) -> Buffer | None:
    if buffer is not None and not key.endswith(_METADATA):
        expect_modest(buffer.as_numpy_array().data, MAX_DECODED_BYTES)
    return buffer


def open_store(place: Place) -> GuardedStore:
    """The store of a Zarr in a folder, in a zip file, or below a URL.

    Raises:
        SourceError: a zip file that is none.
    """
    if not isinstance(place, Path):
        store = GuardedStore(cast("Store", zarr_at(place)))
        store.lists = not place.is_on_web
        return store
    if place.is_dir():
        return GuardedStore(LocalStore(place, read_only=True))
    try:
        with ZipFile(place) as archive:
            entries = archive.infolist()
    except BadZipFile as error:
        raise SourceError(f"it is cut or damaged ({error}); download or copy it again") from error
    largest = max((entry.file_size for entry in entries), default=0)
    # What holds other images is no Zarr, and may hold files of any size.
    if largest > MAX_ENCODED_BYTES and any(entry.filename in _METADATA for entry in entries):
        raise SourceError(f"{place}: a file in it unpacks to {largest} bytes, over {MAX_ENCODED_BYTES}")
    return GuardedStore(sync(ZipStore.open(place, mode="r")))


def fetcher(store: Store) -> Fetch:
    """Reads small files of a store."""

    def fetch(name: str) -> bytes | None:
        buffer = sync(store.get(name, default_buffer_prototype()))
        return None if buffer is None else buffer.to_bytes()

    return fetch


@dataclass(frozen=True, slots=True)
class OpenArray:
    """One level's array, and the file that describes it."""

    array: zarr.Array[Any]
    document: bytes


def shape_of(store: Store, path: str, dimensions: int) -> tuple[int, ...]:
    """An array's shape, from its metadata alone; `SourceError` as for `open_array`."""
    document = parse(_document(store, path)[1], path)
    _check(document, path, dimensions)
    return tuple(cast("list[int]", document["shape"]))


def open_array(store: GuardedStore, path: str, dimensions: int) -> OpenArray:
    """Open an array once its metadata is within the limits.

    Raises:
        SourceError: no array there, or one of a kind that isn't read.
    """
    name, raw = _document(store, path)
    _check(parse(raw, f"{path}/{name}"), path, dimensions)
    try:
        array = zarr.open_array(store, path=path, mode="r")
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise SourceError(
            f"the metadata of array {path!r} is damaged or not supported ({one_line(error)}); correct it, or copy the "
            "image again"
        ) from error
    if array.dtype.kind not in "uif":
        raise SourceError(f"level {path!r} is of type {array.dtype}; integers and floats are read")
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    if chunk_bytes > MAX_DECODED_BYTES:
        raise SourceError(f"a chunk of level {path!r} holds {chunk_bytes} bytes, more than {MAX_DECODED_BYTES}")
    expect_chunks(store, path, array, lists=store.lists)
    return OpenArray(array, raw)


def _document(store: Store, path: str) -> tuple[str, bytes]:
    """The file that describes an array, and its name."""
    fetch = fetcher(store)
    for name in ("zarr.json", ".zarray"):
        raw = fetch(f"{path}/{name}")
        if raw is not None:
            return name, raw
    raise SourceError(f"its level {path!r} is missing: the copy is incomplete")


def _check(document: Document, path: str, dimensions: int) -> None:
    shape: Any = document.get("shape")
    sides = cast("list[Any]", shape if isinstance(shape, list) else [])
    if len(sides) != dimensions or any(not isinstance(side, int) or not 0 < side <= MAX_SIDE_PX for side in sides):
        raise SourceError(f"level {path!r} has shape {str(shape)[:80]}; {dimensions} sides of 1 px or more are needed")
    if "zarr_format" not in document or document["zarr_format"] == 2:
        compressor: Any = document.get("compressor")
        kind = cast("Document", compressor).get("id") if isinstance(compressor, dict) else None
        if document.get("filters") or (kind is not None and kind not in _COMPRESSORS):
            raise SourceError(f"level {path!r} is stored with {kind} and filters {document.get('filters')}: not read")
        return
    for codec in _codecs(document.get("codecs")):
        if codec not in _CODECS:
            raise SourceError(f"level {path!r} is stored with codec {codec}; {', '.join(sorted(_CODECS))} are read")


def _codecs(given: Any, depth: int = 0) -> Iterable[str]:
    """Names of all codecs, those inside shards included."""
    for codec in cast("list[Any]", given if isinstance(given, list) else []):
        named = cast("Document", codec) if isinstance(codec, dict) else {"name": codec}
        yield str(named.get("name"))[:40]
        inside: Any = named.get("configuration")
        if isinstance(inside, dict) and depth < 2:
            yield from _codecs(cast("Document", inside).get("codecs"), depth + 1)
            yield from _codecs(cast("Document", inside).get("index_codecs"), depth + 1)
