"""Files on a disk that appear whole or not at all, where nothing that another person left is followed or replaced."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from tiling.errors import DiskError, LinkError

PARTIAL = ".partial"
"""How the names of files end that are still being written."""

_SPARE = "spare"
_OURS = re.compile(rf".*\.[0-9a-f]{{32}}{re.escape(PARTIAL)}(\..*)?")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What file systems without hard links answer to `link`."""


def is_partial(name: str) -> bool:
    """True if a file is one that a writer of ours has begun: a name with 128 random bits, so never anybody else's."""
    return _OURS.fullmatch(name) is not None


def partial_of(path: Path, suffix: str = "") -> Path:
    """A new name beside a file, which nobody can guess, and under which the next driver finds and removes it."""
    return path.with_name(f".{path.name.removesuffix(suffix)}.{uuid4().hex}{PARTIAL}{suffix}")


@contextmanager
def disk_errors(path: object) -> Generator[None]:
    """Say of a disk's refusal what it means for the run and what helps."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} can't be written ({error.strerror or error}): make space or choose another --out, then run the "
            f"same command again; finished tiles are kept"
        ) from error


def expect_file(path: Path) -> None:
    """Refuse to read what is there and no file: at a pipe a reader waits for ever, and a device has no end.

    Raises:
        OSError: of the kind that Python raises for a folder.
        FileNotFoundError: there is nothing.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise IsADirectoryError(errno.EISDIR, f"it is no file but {_kind(mode)}", str(path))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_file(path: Path) -> bytes:
    """All of a file; raises what `expect_file` and reading raise."""
    expect_file(path)
    return path.read_bytes()


def make_folder(folder: Path, below: Path | None = None) -> None:
    """Make a folder where there is none.

    With `below`, every folder between that and this one is a real one: a link there would lead what is written
    out of the run. `below` itself may be reached through links, and must be there: when somebody removes a run while it
    is worked on, no half of it comes back.

    Raises:
        LinkError: a link or a file is in the way.
        DiskError: `below` is gone.
    """
    if below is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    expect_there(below)
    for place in _between(below, folder):
        if not _is_folder(place):
            place.mkdir(exist_ok=True)
            _is_folder(place)  # somebody may have been quicker, with a link


def expect_there(folder: Path) -> None:
    """Refuse a run's folder that was removed or moved; raises DiskError."""
    if not folder.is_dir():
        raise DiskError(
            f"{folder} is no longer there: somebody removed or moved it while it was worked on; restore it, or run the "
            f"same command again to begin anew"
        )


def remove_file(path: Path, below: Path) -> None:
    """Remove a file, if it is there and no link leads to it.

    Raises:
        LinkError: a link is in the way.
    """
    if all(_is_folder(place) for place in _between(below, path.parent)):
        path.unlink(missing_ok=True)


def _between(below: Path, folder: Path) -> Iterator[Path]:
    """The folders from one down to another, without the first."""
    place = below
    for name in folder.relative_to(below).parts:
        place /= name
        yield place


def _is_folder(place: Path) -> bool:
    """True if there is a folder; LinkError where there is something else."""
    try:
        found = place.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found):
        raise _in_the_way(place, found)
    return True


def expect_no_link(path: Path) -> None:
    """Refuse to write through a link.

    Raises:
        LinkError: there is one.
    """
    if path.is_symlink():
        raise _in_the_way(path, stat.S_IFLNK)


def write_passing(path: Path, pieces: Iterable[bytes | memoryview], spares: Path | None = None) -> None:
    """Write a file so that a reader sees all of it or none of it; what a crash of the machine leaves is open.

    A spare file in the folder of `spares` is written over where there is one.

    Raises:
        OSError: the disk is full or can't be written; nothing is left of the attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        if spares is not None:
            _take_spare(spares, partial)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.truncate()
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def spare(path: Path, spares: Path, most: int) -> None:
    """Give up a file that nobody needs any more: a folder keeps `most` of them for `write_passing`, else it is removed.

    Pages that a file has in memory already are written in half the time of new ones.
    """
    with suppress(FileNotFoundError):
        if len(_spares(spares)) < most:
            path.rename(partial_of(spares / _SPARE))
        else:
            path.unlink()


def _take_spare(spares: Path, path: Path) -> None:
    """Move a spare file to a place, if there is one; links are none."""
    for each in _spares(spares):
        with suppress(FileNotFoundError):  # another was quicker
            each.rename(path)
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                return
            path.unlink()


def _spares(folder: Path) -> list[Path]:
    with os.scandir(folder) as found:
        return [Path(each) for each in found if each.name.startswith(f".{_SPARE}.") and is_partial(each.name)]


def read_passing(path: Path) -> NDArray[np.uint8]:
    """All of a file, unless it was given up meanwhile, since another may be written over it.

    Raises:
        FileNotFoundError: there is none, or not that one any more.
        OSError: as `expect_file` raises it.
    """
    expect_file(path)
    with path.open("rb", buffering=0) as file:
        held = os.fstat(file.fileno())
        found = np.fromfile(file, np.uint8)
        if not os.path.samestat(held, path.stat()):
            raise FileNotFoundError(errno.ENOENT, "it was given up while it was read", str(path))
    return found


def write_whole(
    path: Path, data: bytes, *, below: Path | None = None, is_new: bool = False, synced: bool = True
) -> None:
    """Write a file so that a reader sees all of it or none of it, also after a crash.

    The bytes reach the disk before the name does (fsync, then rename, then fsync of the folder: POSIX rename is atomic,
    but only the folder's own fsync makes it last). A link at the name is replaced, never followed.

    Args:
        path: of the file.
        data: all of it.
        below: the folder from which on no link is followed, see `make_folder`.
        is_new: give the name only to a file that is the first one there, also between two hosts on NFS.
        synced: wait for the disk; a file of a folder that `sync_tree` is called of, before anything names it, need not.

    Raises:
        FileExistsError: with `is_new`, there is such a file.
        OSError: the disk is full or can't be written; nothing is left of the attempt.
    """
    make_folder(path.parent, below)
    partial = partial_of(path)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        if is_new:
            _link(partial, path)
            partial.unlink()
        else:
            partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Wait until the disk has all of a folder: of many files far sooner than for one after another as they are written.

    Raises:
        OSError: the disk is full or can't be written.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place) / name)
        sync(Path(place))


def sync(path: Path) -> None:
    """Wait until the disk has a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(partial: Path, path: Path) -> None:
    """Give a file its name, where nothing has it."""
    try:
        os.link(partial, path)
    except FileExistsError:
        # An NFS server whose answer was lost is asked again, and then finds the name that it gave itself.
        if partial.stat().st_nlink < 2:
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        partial.rename(path)
        partial.touch()  # whoever called removes it


def _in_the_way(place: Path, mode: int) -> LinkError:
    kind = "a symbolic link" if stat.S_ISLNK(mode) else "no folder"
    return LinkError(
        f"{place} is {kind}: what is written there would not be in the run's own folder; put a real folder in its "
        f"place (the run folder itself, and its staged.zarr, may be links)"
    )
