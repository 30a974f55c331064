"""Fingerprint of an image's content: SHA-256 of its bytes, read once, in pieces."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from tiling.errors import SourceError
from tiling.sources.omezarr.reader import OmeZarrReader
from tiling.sources.openslide.vendor import TIFFS_WITH_SIDECARS, companions
from tiling.sources.packed.name import is_packed, packed_name
from tiling.sources.remote import BLOCK_BYTES, RemoteFile
from tiling.sources.scene.content import FORMAT as SCENE
from tiling.sources.scene.content import content_of
from tiling.sources.tiff.sidecars import pixel_sidecars
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

_READ_BYTES = 4 * 1024**2


class Digest(Protocol):
    """Hash object of `hashlib`."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def fingerprint_of(path: Place, kind: str) -> str:
    """The fingerprint of an image of a format.

    A file: its content; a slide of several files, or a Zarr in a folder: that of all of them, with their names; a
    scene: that of all of them, with its bands' names, in the order in which they lie; what lies in a zip, tar or gzip
    file: that file's, with the name of what is meant in it. What would have to be read over the network is known by
    size and tag instead: of an object, with its first 64 KiB, after the word `object`; of a Zarr, of every chunk, with
    its metadata, after the word `objects`, as of a scene with files on the web. A web server lists nothing: there a
    Zarr's is the metadata and the pixels of the coarsest level.

    Raises:
        OSError, SourceError: it can't be read.
        StorageError: the object store fails.
    """
    digest = hashlib.sha256()
    packed = packed_name(path) if isinstance(path, Path) else None
    if packed is not None:
        _add(packed.archive, digest)
        if packed.inner:
            digest.update(f"\n{packed.inner}\n".encode())
        return digest.hexdigest()
    if kind.startswith("ome-zarr"):
        return _of_zarr(path, digest)
    if kind == SCENE:
        return _of_scene(path, digest)
    if isinstance(path, ObjectPath):
        _add_object(path, digest)
        for other in pixel_sidecars(path) if kind in TIFFS_WITH_SIDECARS else []:
            assert isinstance(other, ObjectPath)
            digest.update(f"\n{other.name} {RemoteFile(other).identity}\n".encode())
        return f"object {digest.hexdigest()}"
    _add(path, digest)
    for other in companions(path, kind):
        digest.update(f"\n{other.name} {other.stat().st_size}\n".encode())
        _add(other, digest)
    return digest.hexdigest()


def _of_zarr(path: Place, digest: Digest) -> str:
    if isinstance(path, Path) and path.is_file():
        _add(path, digest)
        return digest.hexdigest()
    reader = OmeZarrReader.at(path)
    if reader is None:
        raise SourceError(f"{path}: there is no OME-Zarr any more")
    try:
        digest.update(f"{reader.identity}\n".encode())
        for name in reader.arrays:
            array = path / name
            if isinstance(array, Path):
                _add_folder(array, digest)
            elif not array.is_on_web:
                _add_listing(array, digest)
        if isinstance(path, ObjectPath) and path.is_on_web:
            coarsest = reader.facts.levels[-1]
            digest.update(reader.read(coarsest.index, coarsest.box).tobytes())
    finally:
        reader.close()
    return digest.hexdigest() if isinstance(path, Path) else f"objects {digest.hexdigest()}"


def _of_scene(path: Place, digest: Digest) -> str:
    content, packed = content_of(path), set[Path]()
    for label, file in content:
        if isinstance(file, ObjectPath):
            digest.update(f"\n{label} ".encode())
            _add_object(file, digest)
        else:
            digest.update(f"\n{label} {file.stat().st_size}\n".encode())
            if file in packed:
                continue  # of which another band's file was one as well
            if is_packed(file):
                packed.add(file)
            _add(file, digest)
    is_remote = any(isinstance(file, ObjectPath) for _, file in content)
    return f"objects {digest.hexdigest()}" if is_remote else digest.hexdigest()


def _add_object(place: ObjectPath, digest: Digest) -> None:
    file = RemoteFile(place)
    digest.update(f"{file.identity}\n".encode())
    digest.update(file.read(BLOCK_BYTES, 0))


def _add_folder(folder: Path, digest: Digest) -> None:
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        _add(file, digest)


def _add_listing(place: ObjectPath, digest: Digest) -> None:
    for found, facts in sorted(place.listed(), key=lambda pair: pair[0].key):
        name = found.key.removeprefix(place.key)
        digest.update(f"{name} {facts.size_bytes} {facts.tag.e_tag or facts.modified.isoformat()}\n".encode())


def _add(path: Path, digest: Digest) -> None:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
