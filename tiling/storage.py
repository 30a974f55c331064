"""Where runs and images lie, small files written whole or not at all, and the lock that keeps a run to one driver."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from tiling.errors import DiskError, PlaceError, RunError
from tiling.lease import Lease
from tiling.objects import ObjectPath

PARTIAL = ".partial"
"""How the names of files end that are still being written."""

Place = Path | ObjectPath
"""A local path, or a name in an object store; both have the part of `pathlib.Path` that a run needs."""


def place_of(reference: str | Place) -> Place:
    """A local path, or a URL's place in an object store.

    Raises:
        StorageError: a URL with credentials, or of a kind that is not supported.
    """
    if isinstance(reference, str):
        return ObjectPath.parse(reference) if "://" in reference else Path(reference)
    return reference


def delete_tree(place: Place) -> None:
    """Remove a folder, or every object below a name, with all that it holds."""
    if isinstance(place, ObjectPath):
        place.delete_tree()
    elif place.exists():
        shutil.rmtree(place)


def move_tree(source: Place, target: Place, last: str) -> None:
    """Move a folder to where there is none; killed in between and asked again, it goes on.

    An object store can't rename: objects are copied, then deleted, the one named `last` at the very end, so that as
    long as the source has it the move isn't over.
    """
    if isinstance(source, ObjectPath):
        assert isinstance(target, ObjectPath)
        source.move_tree(target, last)
        return
    assert isinstance(target, Path)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def size_of_tree(place: Place) -> int:
    """Bytes of all files of a folder, or of all objects below a name."""
    if isinstance(place, ObjectPath):
        return sum(facts.size_bytes for _, facts in place.listed())
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def sweep_partials(folder: Place) -> None:
    """Remove what writers that were killed have left beside a folder's files; only when none writes."""
    if isinstance(folder, Path):  # a put that is not complete leaves nothing
        for partial in folder.glob(f"*{PARTIAL}*"):  # libraries want suffixes of their own
            partial.unlink(missing_ok=True)


def sweep(place: Place) -> None:
    """The same at any depth below a folder."""
    if isinstance(place, Path):
        for partial in place.rglob(f"*{PARTIAL}"):
            partial.unlink(missing_ok=True)


def write_atomic(path: Place, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none of it, also after a crash.

    The bytes reach the disk before the name does (fsync, then rename, then fsync of the folder: POSIX
    rename is atomic, but only the folder's own fsync makes it last). A put into an object store is atomic itself.

    Raises:
        DiskError: the disk is full or can't be written; nothing is left of the attempt.
        StorageError: the object store fails.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    with disk_errors(path):
        _write_file(path, data)


@contextmanager
def disk_errors(path: Place) -> Generator[None]:
    """Say of a disk's refusal what it means for the run and what helps."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} can't be written ({error.strerror or error}): make space or choose another --out, then run the "
            f"same command again; finished tiles are kept"
        ) from error


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def lock_run(place: Place) -> RunLock | Lease:
    """The lock that keeps a run to one driver, as its storage has it: the system's, or a lease that is renewed."""
    return Lease(place) if isinstance(place, ObjectPath) else RunLock(place)


class RunLock:
    """One driver per run: an advisory lock that the system itself releases when the driver dies.

    Raises:
        RunError: another driver holds the run; the message names its host, process and start.
        PlaceError: a file is where the folder should be, or nothing can be made there.
        DiskError: the disk is full or can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "driver.lock"
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        with disk_errors(self._path):
            descriptor = self._opened()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace") or "an unnamed process"
            os.close(descriptor)
            raise RunError(
                f"run {self._path.parent} is being worked on by another driver ({holder}): two drivers would write "
                f"one ledger; wait for it or stop it"
            ) from error
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        holder = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": started})
        self._descriptor = descriptor
        try:
            with disk_errors(self._path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
        except DiskError:
            self.__exit__(None, None, None)
            raise
        return self

    def _opened(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except (NotADirectoryError, FileExistsError, FileNotFoundError, IsADirectoryError) as error:
            raise PlaceError(
                f"{self._path.parent} can be no run's folder ({error.strerror}): a run needs a folder that is there or "
                f"can be made; choose another --out"
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
