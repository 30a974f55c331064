"""Slides of an archive: their names, and the versions of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiling.sources.packed.name import packed_name
from tiling.sources.scene.content import content_of, is_scene
from tiling.storage.file_version import ZARR_METADATA, FileVersion
from tiling.storage.place import Place

ZARR = ".zarr"
SMALL_BYTES = 4 * 2**20
"""Of files below that size an archive may have thousands, and what is done for each alone outweighs their pixels."""


@dataclass(frozen=True, slots=True)
class Slide:
    """One image of an archive.

    overrides: what a manifest asks for this slide alone. refused: why it is not opened, if it isn't. is_folder: whether
    it is a scene in a folder of its own.
    """

    name: str
    place: Place
    file_version: FileVersion | None
    overrides: Mapping[str, str] = field(default_factory=dict[str, str])
    refused: str | None = None
    is_folder: bool = False

    @property
    def is_small(self) -> bool:
        """True if its file is known to be small."""
        return self.file_version is not None and self.file_version.size_bytes < SMALL_BYTES


def file_version(place: Place) -> FileVersion | None:
    """The version of a file, Zarr or scene now; None where there is none.

    Raises:
        SourceError: a scene is incomplete.
        OSError, StorageError: it can't be looked at.
    """
    try:
        if isinstance(place, Path):
            if (packed := packed_name(place)) is not None:
                return FileVersion.of_file(packed.archive.stat())
            if not _is_zarr_folder(place) and is_scene(place):
                return FileVersion.of_files(content_of(place))
            return FileVersion.of_folder(place) if place.is_dir() else FileVersion.of_file(place.stat())
        if is_scene(place):
            return FileVersion.of_files(content_of(place))
        if is_zarr(place.name) and place.is_dir():
            return FileVersion.of_objects(place.listed())
        return FileVersion.of_object(place.facts())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_zarr_folder(place: Path) -> bool:
    return place.is_dir() and (is_zarr(place.name) or any((place / name).is_file() for name in ZARR_METADATA))


def is_zarr(name: str) -> bool:
    return base_name(name).endswith(ZARR)


def base_name(name: str) -> str:
    return name.rpartition("/")[2].lower()
