"""Files that appear whole or not at all, written by libraries that want a path of their own."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from tiling.objects import ObjectPath
from tiling.storage import PARTIAL, Place, disk_errors


@contextmanager
def replacing(place: Place) -> Generator[Path]:
    """A local path to write; what is there when the block ends without an error becomes the place's file.

    For a place in an object store the file is made in the system's folder for temporary files, and put from there.

    Raises:
        DiskError: the disk is full or can't be written.
        StorageError: the object store fails.
    """
    if isinstance(place, ObjectPath):
        with TemporaryDirectory(prefix="overtile-") as folder:
            path = Path(folder) / place.name
            yield path
            place.put_file(path)
        return
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch(place)
    try:
        yield partial
        with disk_errors(place):
            _last(partial)
            partial.replace(place)
            _last(place.parent)
    finally:
        partial.unlink(missing_ok=True)


def scratch(path: Path) -> Path:
    """A new name beside a file, under which a run's next driver finds and removes it should this one be killed.

    It keeps the suffix, by which GDAL knows formats.
    """
    return path.with_name(f".{path.stem}.{uuid4().hex}{PARTIAL}{path.suffix}")


def _last(path: Path) -> None:
    """Wait until the disk has it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
