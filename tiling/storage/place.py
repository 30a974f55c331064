"""Places of runs and images, and the lock that keeps a run to one driver, on a disk or in an object store."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tiling.escaping import word
from tiling.storage.disk import PARTIAL, disk_errors, is_partial, read_file, remove_file, write_whole
from tiling.storage.lease import Lease, is_leased
from tiling.storage.object_path import ObjectPath
from tiling.storage.packed_place import unpacked_name
from tiling.storage.run_lock import RunLock, is_locked_here

Place = Path | ObjectPath
"""A local path, or a name in an object store; both have the part of `pathlib.Path` that a run needs."""


ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What looking for a file gives where there is none, or something else."""


def place_of(reference: str | Place) -> Place:
    """A local path, or a URL's place in an object store.

    Raises:
        StorageError: a URL with credentials, or of a kind that is not supported.
    """
    if isinstance(reference, ObjectPath):
        return reference
    text = unpacked_name(str(reference))
    if isinstance(reference, Path):
        return reference if text == str(reference) else Path(text)
    return ObjectPath.parse(text) if "://" in text else Path(text)


def read_at(place: Place) -> bytes:
    """All of a file or an object; raises IsADirectoryError for what is there and no file."""
    return read_file(place) if isinstance(place, Path) else place.read_bytes()


def delete_tree(place: Place) -> None:
    """Remove a folder, or every object below a name, with all that it holds; of a link the link alone."""
    if isinstance(place, ObjectPath):
        place.delete_tree()
    elif place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)


def move_tree(source: Place, target: Place, last: str) -> None:
    """Move a folder to a free place; a move that was killed is resumed by the same call.

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
    total = 0
    for file in place.rglob("*"):
        with suppress(FileNotFoundError):  # NFS hides files that somebody still reads, and then they go
            facts = file.lstat()
            total += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
    return total


def sweep_partials(folder: Place) -> None:
    """Remove partial files of writers that were killed from a folder; only when none writes."""
    if isinstance(folder, Path):  # a put that is not complete leaves nothing
        _remove_partials(folder.glob(f"*{PARTIAL}*"))  # libraries want suffixes of their own


def sweep(place: Place) -> None:
    """The same at any depth below a folder."""
    if isinstance(place, Path):
        _remove_partials(place.rglob(f"*{PARTIAL}"))


def _remove_partials(found: Iterable[Path]) -> None:
    """Of the files whose names look so those that are ours: anybody may call a file `.partial`."""
    for file in found:
        if is_partial(file.name) and (file.is_symlink() or not file.is_dir()):
            file.unlink(missing_ok=True)


def write_atomic(path: Place, data: bytes, *, below: Place | None = None, synced: bool = True) -> None:
    """Write a file so that a reader sees all of it or none of it, also after a crash.

    A put into an object store is atomic itself. From `below` on no link is followed, see
    `tiling.storage.disk.make_folder`. What isn't `synced` may be lost in a crash until `sync_tree`.

    Raises:
        DiskError: the disk is full or can't be written; nothing is left of the attempt.
        LinkError: a link is in the way.
        StorageError: the object store fails.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    with disk_errors(path):
        write_whole(path, data, below=below if isinstance(below, Path) else None, synced=synced)


def remove_within(path: Place, below: Place) -> None:
    """Remove a file or an object, where there is one; from `below` on no link is followed.

    Raises:
        LinkError: a link is in the way.
    """
    if isinstance(path, Path) and isinstance(below, Path):
        remove_file(path, below)
    else:
        path.unlink(missing_ok=True)


def pasted(place: Place) -> str:
    """A place as one word of a command that is pasted later, in whatever folder.

    >>> pasted(Path("/data/Ward 7"))
    "'/data/Ward 7'"
    """
    return word(place if isinstance(place, ObjectPath) else place.absolute())


def lock_run(place: Place) -> RunLock | Lease:
    """The lock that keeps a run to one driver, as its storage has it: the system's, or a lease that is renewed."""
    return Lease(place) if isinstance(place, ObjectPath) else RunLock(place)


def is_locked(place: Place) -> bool:
    """True if a driver is at work there now."""
    return is_leased(place) if isinstance(place, ObjectPath) else is_locked_here(place)
