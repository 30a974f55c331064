"""Slides of an archive: their names, and what a look says of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiling.storage.file_version import FileVersion
from tiling.storage.place import Place

ZARR = ".zarr"


@dataclass(frozen=True, slots=True)
class Slide:
    """One image of an archive.

    overrides: what a manifest asks for this slide alone. refused: why it is not opened, if it isn't.
    """

    name: str
    place: Place
    file_version: FileVersion | None
    overrides: Mapping[str, str] = field(default_factory=dict[str, str])
    refused: str | None = None


def file_version(place: Place) -> FileVersion | None:
    """The version of a file or Zarr now; None where there is none."""
    try:
        if isinstance(place, Path):
            return FileVersion.of_folder(place) if place.is_dir() else FileVersion.of_file(place.stat())
        if is_zarr(place.name) and place.is_dir():
            return FileVersion.of_objects(place.listed())
        return FileVersion.of_object(place.facts())
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_zarr(name: str) -> bool:
    return base_name(name).endswith(ZARR)


def base_name(name: str) -> str:
    return name.rpartition("/")[2].lower()
