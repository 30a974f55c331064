"""Digest of all files of a folder, their names included."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tiling.storage.checksum import Checksum
from tiling.storage.disk import is_partial
from tiling.storage.place import Place


def tree_digest(folder: Place) -> str:
    """blake2b-128 over the names and digests of all files in a folder, in the order of their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, file in files_of(folder):
        digest.update(f"{name}\0{Checksum.of(file).digest}\n".encode())
    return digest.hexdigest()


def files_of(folder: Place) -> list[tuple[str, Place]]:
    """All files in a folder by their names below it, but those that are still being written."""
    there = folder.rglob("*") if isinstance(folder, Path) else folder.descendants()
    files = (each for each in there if not isinstance(each, Path) or each.is_file())
    named = sorted((str(each)[len(str(folder)) + 1 :], each) for each in files)
    return [(name, file) for name, file in named if not is_partial(name.rpartition("/")[2])]
