"""Zarr stores: a folder, or an object store through Zarr's own adapter with this package's errors."""

from __future__ import annotations

import errno
import stat
from collections.abc import Awaitable, Callable, Iterable

from obstore.store import ObjectStore as Connection
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, ObjectStore

from tiling.storage.connection import Answer, connect, store_errors, with_retries_async
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place
from tiling.storage.web_zarr import WebZarr


def zarr_at(place: Place) -> FolderZarr | ObjectZarr | WebZarr:
    """Store or path that Zarr opens for a place."""
    if isinstance(place, ObjectPath) and place.is_on_web:
        return WebZarr(place)
    return ObjectZarr(connect(place.root, place.key)) if isinstance(place, ObjectPath) else FolderZarr(place)


class FolderZarr(LocalStore):
    """The Zarr store in a folder. A pipe or a device among its files is an error, and nobody waits for it."""

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self._expect_file(key)
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self._expect_file(key)
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        wanted = list(key_ranges)
        for key, _ in wanted:
            self._expect_file(key)
        return await super().get_partial_values(prototype, wanted)

    def _expect_file(self, key: str) -> None:
        """Take what isn't there, or is a folder, for what was never written, as Zarr does."""
        try:
            mode = (self.root / key).stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "it is no file but a pipe, a socket or a device", str(self.root / key))


class ObjectZarr(ObjectStore[Connection]):
    """The Zarr store below one place. What fails for longer than the retries last is a `StorageError`."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        base = super()
        return await _asked(key, lambda: base.get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        base, wanted = super(), list(key_ranges)
        return await _asked("a part of an array", lambda: base.get_partial_values(prototype, wanted))

    async def exists(self, key: str) -> bool:
        base = super()
        return await _asked(key, lambda: base.exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        base = super()
        await _asked(key, lambda: base.set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        base = super()
        await _asked(key, lambda: base.set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        base = super()
        await _asked(key, lambda: base.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        base = super()
        await _asked(prefix, lambda: base.delete_dir(prefix))


async def _asked(what: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    async def once() -> Answer:
        with store_errors(what):
            return await ask()

    return await with_retries_async(once)
