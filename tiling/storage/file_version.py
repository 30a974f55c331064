"""Version of a file, as a listing shows it without reading the file: a change of it is seen by that."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tiling.storage.object_facts import ObjectFacts
from tiling.storage.object_path import ObjectPath

ZARR_METADATA = ("zarr.json", ".zattrs")


@dataclass(frozen=True, slots=True)
class FileVersion:
    """Version of a file as a listing gives it: it says that the file may have changed, never that it hasn't.

    version: the times of its last change and of its inode's, or the store's tag. modified: seconds since 1970;
    None in an object store, where an object appears whole. Of a Zarr, they are of all that it consists of.
    """

    size_bytes: int
    version: str
    modified: float | None

    @classmethod
    def of_file(cls, facts: os.stat_result) -> FileVersion:
        return cls(facts.st_size, f"{facts.st_mtime_ns} {facts.st_ctime_ns}", facts.st_mtime)

    @classmethod
    def of_object(cls, facts: ObjectFacts) -> FileVersion:
        tag = facts.tag.e_tag or facts.tag.version or facts.modified.isoformat()
        # Some stores put a tag in quotes when asked for the object, and list it without.
        return cls(facts.size_bytes, tag.strip('"'), None)

    @classmethod
    def of_folder(cls, folder: Path) -> FileVersion:
        """Of a Zarr, by its metadata's size and the times of that and of its folders.

        A chunk that comes, goes or is replaced changes its folder's times: no chunk has to be asked for its own.
        """
        files = [folder / name for name in ZARR_METADATA if (folder / name).is_file()]
        inner = [Path(place) / name for place, names, _ in os.walk(folder) for name in names]
        known = [place.stat() for place in (folder, *inner, *files)]
        newest = max(max(facts.st_mtime_ns, facts.st_ctime_ns) for facts in known)
        return cls(sum(file.stat().st_size for file in files), f"{newest} {len(known)}", newest / 1e9)

    @classmethod
    def of_files(cls, files: Iterable[tuple[str, Path | ObjectPath]]) -> FileVersion:
        """Of an image of several files, each with what is known of it besides, in their order."""
        size_bytes, newest, digest = 0, 0.0, hashlib.sha256()
        for label, file in files:
            one = cls.of_object(file.facts()) if isinstance(file, ObjectPath) else cls.of_file(file.stat())
            digest.update(f"{label} {file} {one.size_bytes} {one.version}\n".encode(errors="surrogateescape"))
            size_bytes, newest = size_bytes + one.size_bytes, max(newest, one.modified or 0.0)
        return cls(size_bytes, digest.hexdigest(), newest)

    @classmethod
    def of_objects(cls, listed: Iterable[tuple[ObjectPath, ObjectFacts]]) -> FileVersion:
        """Of a Zarr in a bucket, by all its objects, which come one by one."""
        size_bytes, newest, digest = 0, 0.0, hashlib.sha256()
        for path, facts in listed:
            one = cls.of_object(facts)
            digest.update(f"{path.name} {one.size_bytes} {one.version}\n".encode())
            size_bytes, newest = size_bytes + one.size_bytes, max(newest, facts.modified.timestamp())
        return cls(size_bytes, digest.hexdigest(), newest)

    def is_settled(self, seconds: float) -> bool:
        """True if the file was left alone for so long; a time in the future says nothing."""
        if self.modified is None:
            return True
        age = time.time() - self.modified
        return age >= seconds or age < 0
