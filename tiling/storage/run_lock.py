"""The lock that keeps a run on a disk to one driver: the system's own, released when the driver dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from tiling.errors import PlaceError, RunError
from tiling.escaping import plain
from tiling.storage.disk import disk_errors

LOCK_NAME = "driver.lock"
_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
"""What the system answers where another process has the lock; NFS, which makes byte-range locks of them, the last."""
_held: dict[Path, RunLock] = {}


class RunLock:
    """One driver per run.

    Two locks: on the folder, which can't be removed from under it while it holds anything, and on `driver.lock` in
    it, for NFS locks only files that are open for writing. Each counts only while its name still leads to what is
    locked; a run whose locks are both lost is no longer ours (`expect_held`).

    Raises:
        RunError: another driver holds the run; the message names its host, process and start.
        PlaceError: a file is where the folder should be, nothing can be made there, `driver.lock` is a link or
            no file, or the file system has no locks.
        DiskError: the disk is full or can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LOCK_NAME
        self._key = folder
        self._of_folder: int | None = None
        self._descriptor: int | None = None
        self._locks_folder = False

    def __enter__(self) -> RunLock:
        try:
            with disk_errors(self._path):
                self._enter_folder()
                self._enter_file()
                self._sign()
        except BaseException:
            self._close()
            raise
        self._key = self._folder.resolve()
        _held[self._key] = self
        return self

    @property
    def is_held(self) -> bool:
        """True if what is locked still is what the names lead to."""
        if not _is_at(self._of_folder, self._key):
            return False
        return self._locks_folder or _is_at(self._descriptor, self._path)

    def _enter_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._of_folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (NotADirectoryError, FileExistsError, FileNotFoundError, IsADirectoryError) as error:
            raise PlaceError(
                f"{self._folder} can be no run's folder ({error.strerror}): a run needs a folder that is there or "
                f"can be made; choose another --out"
            ) from error
        try:
            fcntl.flock(self._of_folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._locks_folder = True
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise self._taken(_holder(self._path)) from error
            self._locks_folder = False  # NFS, and some others, lock no folders

    def _enter_file(self) -> None:
        """Open and lock the file; again, when another driver has removed it meanwhile."""
        for _ in range(10):
            descriptor = self._opened()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _read(descriptor)
                os.close(descriptor)
                if error.errno in _TAKEN:
                    raise self._taken(holder) from error
                if self._locks_folder:
                    return
                raise PlaceError(
                    f"{self._folder} is on a file system without locks ({error.strerror}): two drivers could write one "
                    f"ledger unseen; mount it with locks (NFS: version 4, or without nolock), or choose another --out"
                ) from error
            self._descriptor = descriptor
            if _is_at(descriptor, self._path):
                return
            os.close(descriptor)
            self._descriptor = None
        raise RunError(f"{self._path} is removed again and again while it is locked: stop whatever removes it")

    def _opened(self) -> int:
        try:
            descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
            )
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                raise self._no_lock(error.strerror) from error
            raise
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
            os.close(descriptor)
            raise self._no_lock("it is no file" if not stat.S_ISREG(facts.st_mode) else "it has a second name")
        return descriptor

    def _no_lock(self, why: str | None) -> PlaceError:
        return PlaceError(
            f"{self._path} is no lock of a run ({why}): a driver empties it, and would empty what it leads to; remove "
            f"it, then run the same command again"
        )

    def _taken(self, holder: str) -> RunError:
        return RunError(
            f"{self._folder} is being worked on by another driver ({_shown(holder)}): two drivers would write one "
            f"ledger; wait for it or stop it"
        )

    def _sign(self) -> None:
        if self._descriptor is None:
            return
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        holder = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": started})
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, holder.encode(), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _held.get(self._key) is self:
            del _held[self._key]
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):  # its file system is gone; so is the lock
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
        if self._of_folder is not None:
            os.close(self._of_folder)
        self._descriptor = self._of_folder = None
        self._locks_folder = False


def is_locked_here(folder: Path) -> bool:
    """True if a driver is at work on a run, or an archive. It is left in peace: nothing is locked but what is stale."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        holder = json.loads(_read(descriptor) or "{}")
        if not holder:  # handed back
            return False
        if holder.get("host") == socket.gethostname() and not psutil.pid_exists(int(holder["process"])):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    except (ValueError, KeyError, AttributeError, TypeError):  # no driver wrote it
        return False
    finally:
        os.close(descriptor)
    return False


def expect_held(folder: Path) -> None:
    """Refuse to write into a run that this process had locked, and whose lock somebody has removed since.

    Raises:
        RunError: another driver may have begun.
    """
    lock = _held.get(folder)
    if lock is not None and not lock.is_held:
        raise RunError(
            f"the lock of run {folder} is lost (the folder or {LOCK_NAME} was removed, moved or replaced): another "
            f"driver may work on it; this one stops, and the same command resumes the run as it is then"
        )


def _is_at(descriptor: int | None, path: Path) -> bool:
    """True if a name leads to the very file that is open; False where that can't be known."""
    if descriptor is None:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=path.name != LOCK_NAME))
    except OSError:
        return False


def holder_text(host: object, process: object, since: object) -> str:
    """The holder of a lock as people write it.

    >>> holder_text("node7", 17, "2026-11-30T15:31:30+0000")
    'process 17 of node7, since 2026-11-30 15:31:30+0000'
    """
    return f"process {process} of {host}, since {str(since).replace('T', ' ')}"


def _shown(holder: str) -> str:
    """Content of a lock's file, as people write it: it may be another program's, or cut off."""
    try:
        facts = json.loads(holder)
        return plain(holder_text(facts["host"], facts["process"], facts["since"]))
    except (ValueError, KeyError, TypeError):
        return "an unnamed process"


def _holder(path: Path) -> str:
    """Holder of the lock, as it is written in the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return _read(descriptor)
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 4096, 0).decode(errors="replace")
