"""The bytes of an image file, by range: of a file on disk, or of an object that is read over the network."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from tiling.errors import SourceError
from tiling.sources.remote import RemoteFile
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place


class ImageFile(Protocol):
    """Random access to a file's bytes. Safe to use from several threads at once."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def identity(self) -> str:
        """Identity that changes when the file does, as far as that is known without reading it."""
        ...

    @property
    def memory_bytes(self) -> int:
        """The most that it holds."""
        ...

    @property
    def is_slow(self) -> bool:
        """True if every read costs a round trip, so that `fetch` pays."""
        ...

    def read(self, count: int, offset: int) -> bytes:
        """Bytes from `offset` on; fewer at the file's end."""
        ...

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Get ready what is read next, as (offset, count), side by side."""
        ...

    def stream(self) -> Path | BinaryIO:
        """Stream that a parser opens."""
        ...

    def expect_unbroken(self) -> None:
        """Raise what a read has raised and a parser swallowed."""
        ...

    def close(self) -> None: ...


class LocalFile:
    """A file on disk."""

    is_slow = False
    memory_bytes = 0

    def __init__(self, path: Path) -> None:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(f"{path}: is a folder, not an image file")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{path}: is a device, pipe or socket, not an image file")
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self._fd)
        self.size_bytes = os.fstat(self._fd).st_size

    @property
    def identity(self) -> str:
        return str(self.size_bytes)

    def read(self, count: int, offset: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing to do: the system reads ahead by itself."""

    def stream(self) -> Path:
        return self._path

    def expect_unbroken(self) -> None:
        """A disk's errors are in the parser's way each time again; nothing needs to be kept."""


def open_file(place: Place) -> ImageFile:
    """Open a file.

    Raises:
        OSError, SourceError: there is none, it is no file, or it may not be read.
        StorageError: the object store failed.
    """
    return RemoteFile(place) if isinstance(place, ObjectPath) else LocalFile(place)
