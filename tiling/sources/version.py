"""The files that an image is made of, and their version: how a change is seen without reading them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tiling.errors import SourceError
from tiling.sources.omezarr.labels import is_labels_group
from tiling.sources.openslide.vendor import companions
from tiling.sources.packed.name import PACKED, packed_name
from tiling.sources.scene.content import FORMAT as SCENE
from tiling.sources.scene.content import content_of
from tiling.sources.scene.naming import is_list
from tiling.storage.file_version import FileVersion
from tiling.storage.object_facts import ObjectFacts
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

UNKNOWN = "unknown"
"""The version of an image of which nothing can be listed: a Zarr on a web server."""

FILES_PER_LOOK = 100
"""Of a larger OME-Zarr in a folder, a look beside each tile asks its folders alone: a chunk that is replaced, removed
or added changes its folder's time, and one that is overwritten in place is seen by the whole look of a stage's end."""


class ImageFiles:
    """Files that an image consists of.

    A version is the size, the times of the last change of content and inode, and the inode's number of every local
    file, or the size and the store's tag of every object. Equal versions are one content; other versions may be.
    """

    def __init__(self, place: Place, kind: str) -> None:
        packed = packed_name(place) if isinstance(place, Path) else None
        if packed is not None:
            place, kind = packed.archive, PACKED
        self._place = place
        self._is_zarr = kind.startswith("ome-zarr") and not (isinstance(place, Path) and place.is_file())
        self._is_scene, self._parts = kind == SCENE, list[Place]()
        self._others = [] if self._is_zarr or not isinstance(place, Path) else companions(place, kind)
        self._is_conditional = False
        self._folders: list[Path] = []
        self._is_large = False

    def whole(self) -> str:
        """The version now, of every file.

        Raises:
            FileNotFoundError: one of them is gone.
            OSError, StorageError: they can't be looked at.
        """
        if self._is_scene:
            return self._whole_scene()
        if isinstance(self._place, Path):
            if not self._is_zarr:
                return _of_files([self._place, *self._others])
            names = list(_walked(self._place))
            self._folders = [folder for folder, _ in names]
            files = [folder / name for folder, inner in names for name in sorted(inner)]
            self._is_large = len(files) > FILES_PER_LOOK
            if not files:
                raise FileNotFoundError(self._place)
            return _of_files(sorted(files))
        if not self._is_zarr:
            facts = self._place.facts()
            self._is_conditional = _is_conditional(facts)
            return _text(FileVersion.of_object(facts))
        if self._place.is_on_web:
            return UNKNOWN
        return _text(FileVersion.of_objects(self._place.listed()))

    def quick(self) -> str:
        """Version that is compared before and after each read, once a whole look has been taken.

        Raises:
            As `whole` does.
        """
        if self._is_scene:
            return _of_parts(self._parts)  # a file that a glob would find by now belongs to no read
        if isinstance(self._place, Path):
            return _of_files(self._folders) if self._is_large else self.whole()
        return "" if self._is_zarr or self._is_conditional else self.whole()

    def _whole_scene(self) -> str:
        parts = _scene_parts(self._place)
        objects: dict[Place, ObjectFacts] = {part: part.facts() for part in parts if isinstance(part, ObjectPath)}
        # A folder's own time says that a file came or went.
        is_folder = isinstance(self._place, Path) and not is_list(self._place) and self._place.is_dir()
        self._parts = [self._place] if is_folder else []
        self._parts += [part for part in parts if part not in objects or not _is_conditional(objects[part])]
        return _of_parts(parts, objects)


def _is_conditional(facts: ObjectFacts) -> bool:
    """True if every read of an object names its tag, and fails where it has another."""
    return facts.tag.e_tag is not None and not facts.tag.e_tag.startswith("W/")


def _walked(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders of a Zarr with the names of their files; without its labels, which are no part of the image."""
    for name, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not is_labels_group(Path(name, each))]
        yield Path(name), files


def _scene_parts(place: Place) -> list[Place]:
    """Every file of a scene; one that is missing leaves none."""
    try:
        return [file for _, file in content_of(place)]
    except SourceError as error:
        raise FileNotFoundError(str(error)) from error


def version_of_file(place: Place) -> str | None:
    """The version of an image that is one file on a disk; None of others, and of what can't be looked at."""
    try:
        if not isinstance(place, Path) or place.is_dir():
            return None
        place = place.expanduser().absolute()
        packed = packed_name(place)
        return _of_files([place if packed is None else packed.archive])
    except (OSError, ValueError):
        return None


def is_bracketed(place: str, kind: str) -> bool:
    """True if looks before and after a read notice every change that the read of an image may have met.

    Of an OME-Zarr they don't: of a large one, or one in an object store, single chunks aren't looked at.
    """
    return not kind.startswith("ome-zarr") or place.lower().endswith((".zip", ".ozx"))


def _of_files(paths: Iterable[Path]) -> str:
    return _of_parts(paths)


def _of_parts(parts: Iterable[Place], objects: Mapping[Place, ObjectFacts] | None = None) -> str:
    """Version of files and objects, of which some facts are known already."""
    digest, objects = hashlib.sha256(), objects or {}
    for part in parts:
        if isinstance(part, ObjectPath):
            text = _text(FileVersion.of_object(objects.get(part) or part.facts()))
        else:
            facts = _looked_at(part)
            text = f"{_text(FileVersion.of_file(facts))} {facts.st_ino}"
        digest.update(f"{part} {text}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _looked_at(path: Path) -> os.stat_result:
    """Of the file as its server has it: on a network share opening asks, and a look alone answers from memory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _text(stamp: FileVersion) -> str:
    return f"{stamp.size_bytes} {stamp.version}"
