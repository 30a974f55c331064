"""Content of a packed file while it is looked into, and the files in it that a pattern finds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from tiling.errors import SourceError
from tiling.sources.packed.name import MARK, PackedName, is_packed
from tiling.sources.packed.unpacked import Unpacked, unpacked

Finder = Callable[[Path, str], list[Path]]
"""Finds the files below a folder that a pattern names."""


@contextmanager
def content_of_packed(packed: PackedName) -> Generator[Unpacked]:
    """The unpacked content of a file; what is wrong with it names that file.

    Raises:
        SourceError: it can't be unpacked, or its name climbs out of it.
    """
    if ".." in Path(packed.inner).parts:
        raise SourceError(f"{packed.archive}: {packed.inner!r} climbs out of it; name what lies in it")
    try:
        content = unpacked(packed.archive)
    except SourceError as error:
        raise SourceError(f"{packed.archive}: {error}") from error
    try:
        yield content
    except SourceError as error:
        raise SourceError(str(error).replace(str(content.folder), f"{packed.archive}{MARK}")) from error
    finally:
        content.close()


def packed_files(folder: Path, pattern: str, find: Finder) -> list[Path]:
    """Names of the files in packed ones that a pattern finds, such as `*.zip!/**/*_B04.jp2`.

    Raises:
        SourceError: one of them can't be unpacked.
    """
    at = pattern.find(MARK)
    while at >= 0:
        outer, inner = folder / pattern[:at], pattern[at + 1 :].strip("/")
        archives = [outer] if outer.is_file() else find(folder, pattern[:at])
        archives = [each for each in archives if is_packed(each)]
        if archives and inner:
            return [each for archive in archives for each in _inside(PackedName(archive, inner), find)]
        at = pattern.find(MARK, at + 1)
    return []


def _inside(packed: PackedName, find: Finder) -> list[Path]:
    with content_of_packed(packed) as content:
        folder = content.folder
        found = [folder / packed.inner] if (folder / packed.inner).is_file() else find(folder, packed.inner)
        return [packed.within(each.relative_to(folder).as_posix()) for each in found]
