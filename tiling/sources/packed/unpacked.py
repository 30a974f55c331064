"""Unpacked content of a zip, tar or gzip file: a folder for all that read it on this machine, made once.

It lies in the system's folder for temporary files (TMPDIR), is known by the file's path, size and times, and is kept
while any process has it open. Of those that none has, the newest are kept, within bounds, for the next to open them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from tiling.errors import SourceError
from tiling.sources.packed.name import MARK

MOST_BYTES = 64 * 1024**3
"""Bytes that a file may unpack to."""
SURE_BYTES = 4 * 1024**3
MOST_RATIO = 100
"""Times its own size that it may be beyond `SURE_BYTES`: pixels without anything in them are packed so well."""
MOST_MEMBERS = 65_536
MEMORY_BYTES = 512 * 1024**2
START_SECONDS = 300
SPARE_BYTES = 1024**3
"""Space that is left on the disk."""
KEPT, KEPT_BYTES, KEPT_SECONDS = 4, 16 * 1024**3, 24 * 3600
"""Folders that are kept though nothing has them open: their number, their bytes together, and the time."""

_CHILD = Path(__file__).with_name("child.py")
_KEPT_NAMES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_NAME_LETTERS = 60


class Unpacked:
    """A packed file's folder, kept until this is closed. Safe to close from several threads, and twice."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self._lock, self._descriptor = threading.Lock(), descriptor
        self._end = weakref.finalize(self, _release, descriptor)

    def shared(self) -> Unpacked:
        """The same, kept until that is closed as well."""
        return Unpacked(self.folder, os.dup(self._descriptor))

    def close(self) -> None:
        with self._lock:
            is_open = self._end.alive
            self._end()
        if is_open:
            with contextlib.suppress(OSError, SourceError):
                tidy()


def unpacked(archive: Path) -> Unpacked:
    """The folder of a packed file's content, unpacked where no process has done so yet.

    Raises:
        SourceError: it is hostile, damaged or too large, or there is no space.
        OSError: it can't be read.
    """
    facts = archive.stat()
    known = f"{archive.resolve()}\n{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
    room = _room()
    place = room / hashlib.sha256(known.encode(errors="surrogateescape")).hexdigest()[:16]
    folder = place / f"{archive.name[-_NAME_LETTERS:]}{MARK}"
    while True:
        descriptor = _locked(place, fcntl.LOCK_SH)
        if folder.is_dir():
            os.utime(_lock_file(place))
            return Unpacked(folder, descriptor)
        os.close(descriptor)
        descriptor = _locked(place, fcntl.LOCK_EX)
        try:
            if not folder.is_dir():
                _unpack(archive, place, folder.name)
                if _changed(archive.stat(), facts):
                    shutil.rmtree(place)
                    raise SourceError("it is being written while it is unpacked; give it when it is whole")
        finally:
            os.close(descriptor)
        tidy(place)


def tidy(but: Path | None = None, *, all_unused: bool = False) -> None:
    """Remove folders that nothing has open, but for the newest of them."""
    room = _room()
    locks = [lock for lock in room.glob("*.lock") if lock.with_suffix("") != but]
    kept, kept_bytes = 0, 0
    for lock, used in sorted(((lock, _used(lock)) for lock in locks), key=lambda pair: -pair[1]):
        place = lock.with_suffix("")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue  # in use
        try:
            kept, kept_bytes = kept + 1, kept_bytes + _size(place)
            is_old = time.time() - used > KEPT_SECONDS
            if all_unused or is_old or kept > KEPT or kept_bytes > KEPT_BYTES:
                shutil.rmtree(place, ignore_errors=True)
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _changed(now: os.stat_result, before: os.stat_result) -> bool:
    return (now.st_size, now.st_mtime_ns, now.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino)


def _unpack(archive: Path, place: Path, name: str) -> None:
    """Unpack into a folder that appears when it is whole; caller holds the lock."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(0o700)
    partial = place / f"{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(0o700)
        answer = _asked(archive, partial)
        if "needed" in answer:
            _again(partial)
            tidy(place, all_unused=True)
            answer = _asked(archive, partial)
        if "needed" in answer:
            raise SourceError(
                f"it unpacks to {answer['needed'] / 1e9:.1f} GB and more, and {_free(place) / 1e9:.1f} GB are free in "
                f"{place.parent.parent}; make space there, set TMPDIR to another folder, or unpack it yourself"
            )
        if "error" in answer:
            raise SourceError(str(answer["error"]))
        partial.rename(place / name)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _again(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir(0o700)


def _asked(archive: Path, folder: Path) -> dict[str, Any]:
    """Answer of the process that unpacks, which is bounded in time, memory and what it writes."""
    size, stem = archive.stat().st_size, archive.name
    asked = {
        "archive": str(archive),
        "folder": str(folder),
        "name": stem[: -len(".gz")] if stem.lower().endswith(".gz") else f"{stem}.unpacked",
        "most_bytes": min(MOST_BYTES, max(SURE_BYTES, MOST_RATIO * size)),
        "free_bytes": _free(folder),
        "most_members": MOST_MEMBERS,
        "memory_bytes": MEMORY_BYTES,
        "seconds": START_SECONDS,
    }
    environment = {name: os.environ[name] for name in _KEPT_NAMES if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-I", str(_CHILD), json.dumps(asked)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        check=False,
    )
    if done.returncode == 0:
        with contextlib.suppress(ValueError):
            return dict(json.loads(done.stdout))
    ending = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
    why = "it takes too long" if done.returncode == -signal.SIGALRM else f"the process that unpacks it ended: {ending}"
    return {"error": f"{why}; it is damaged or hostile, or the disk is slow: unpack it yourself, and give the folder"}


def _room() -> Path:
    """The folder of all that is unpacked for this user, and for no other.

    Raises:
        SourceError: somebody else's lies there.
    """
    room = Path(tempfile.gettempdir()) / f"overtile-unpacked-{os.getuid()}"
    try:
        room.mkdir(0o700, exist_ok=True)
        facts = room.lstat()
    except OSError as error:
        raise SourceError(
            f"to unpack it, {room} is needed ({error.strerror or error}); set TMPDIR to a folder that can be written"
        ) from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise SourceError(
            f"to unpack it, {room} has to be a folder of this user's that no other can open; remove it, or set TMPDIR"
        )
    return room


def _lock_file(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


def _locked(place: Path, how: int) -> int:
    """A lock on a folder, whose own file it is: one that was removed meanwhile locks nothing."""
    path = _lock_file(place)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _release(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _used(lock: Path) -> float:
    try:
        return lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(place: Path) -> int:
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += Path(folder, name).lstat().st_size
    return total


def _free(folder: Path) -> int:
    return max(0, shutil.disk_usage(folder).free - SPARE_BYTES)
