"""Zarr store below an address on the web, to read from: its files are asked for as images there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NoReturn

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from tiling.storage.object_path import ObjectPath
from tiling.storage.web_object import bytes_of, facts_of


class WebZarr(Store):
    """The Zarr store at an address. What fails for longer than the retries last is a `StorageError`."""

    def __init__(self, place: ObjectPath) -> None:
        super().__init__(read_only=True)
        self._place = place

    @property
    def supports_writes(self) -> bool:
        return False

    @property
    def supports_deletes(self) -> bool:
        return False

    @property
    def supports_listing(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WebZarr) and other._place == self._place

    def __hash__(self) -> int:
        return hash(self._place)

    def __str__(self) -> str:
        return str(self._place)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            data, _ = await asyncio.to_thread(bytes_of, str(self._place / key), _wanted(byte_range))
        except FileNotFoundError:
            return None
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        try:
            await self.getsize(key)
        except FileNotFoundError:
            return False
        return True

    async def getsize(self, key: str) -> int:
        return (await asyncio.to_thread(facts_of, str(self._place / key))).size_bytes

    async def set(self, key: str, value: Buffer) -> None:
        self._place.expect_writable()

    async def delete(self, key: str) -> None:
        self._place.expect_writable()

    def list(self) -> AsyncIterator[str]:
        _no_list()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        _no_list()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        _no_list()


def _wanted(byte_range: ByteRequest | None) -> slice | None:
    if byte_range is None:
        return None
    if isinstance(byte_range, RangeByteRequest):
        return slice(byte_range.start, byte_range.end)
    if isinstance(byte_range, OffsetByteRequest):
        return slice(byte_range.offset, None)
    return slice(-byte_range.suffix, None)


def _no_list() -> NoReturn:
    raise NotImplementedError("a web server lists nothing")
