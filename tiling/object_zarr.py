"""Zarr arrays in an object store: Zarr's own adapter, with this package's errors."""

from __future__ import annotations

from collections.abc import Iterable

from obstore.store import ObjectStore as Connection
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from tiling.objects import ObjectPath, connect, store_errors


class ObjectZarr(ObjectStore[Connection]):
    """The Zarr store below one place. What fails for longer than the retries last is a `StorageError`."""

    @classmethod
    def at(cls, place: ObjectPath) -> ObjectZarr:
        return cls(connect(place.root, place.key))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        with store_errors(key):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        with store_errors("a part of an array"):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        with store_errors(key):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        with store_errors(key):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        with store_errors(key):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        with store_errors(key):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        with store_errors(prefix):
            await super().delete_dir(prefix)
