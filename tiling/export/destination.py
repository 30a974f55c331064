"""Files that appear whole or not at all, written by libraries that want a path of their own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tiling.storage.disk import make_folder, partial_of, sync
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, disk_errors


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
        make_folder(place.parent, place.parent.parent)
    partial = scratch(place)
    try:
        yield partial
        with disk_errors(place):
            sync(partial)
            partial.replace(place)
            sync(place.parent)
    finally:
        partial.unlink(missing_ok=True)


def scratch(path: Path) -> Path:
    """A new name beside a file, under which a run's next driver finds and removes it should this one be killed.

    It keeps the suffix, by which GDAL knows formats.
    """
    return partial_of(path, path.suffix)
