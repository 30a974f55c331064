"""Files of a model on the Hugging Face Hub, downloaded once into the user's cache and held to their digests there.

Below `hub` of the cache, `blobs` holds each file's bytes under their digest, and `models/OWNER/NAME/COMMIT` links to
them by name. A commit's files never change, so what is there needs no network. Never imports torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from unet_core.bundles.hub.client import Listed, listing, open_file
from unet_core.bundles.hub.model import HubModel
from unet_core.errors import BundleError
from unet_core.files import cache_folder, write_whole

_LISTING = ".listing.json"
_PIECE = 1 << 20


def fetch(reference: str) -> Path:
    """The model as a file or folder on this machine.

    Raises:
        BundleError: no commit is named, the repository or the commit is not there, the hub can't be reached, or a file
            isn't the one of its digest.
    """
    model = HubModel.parse(reference)
    if not model.is_pinned:
        raise BundleError(_unpinned(model))
    folder = cache_folder() / "hub" / "models" / model.owner / model.name / model.revision
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {each.name: each for each in listing(model, folder / _LISTING).files}
        names, where = model.wanted(files)
        for name in names:
            _place(model, files[name], folder / name)
    except OSError as error:
        raise BundleError(
            f"model {reference!r} can't be kept below {cache_folder()}: {error}; make room there"
        ) from error
    return folder / where if where else folder


def _unpinned(model: HubModel) -> str:
    """A refusal that names the commit which is meant now, where the hub can be asked."""
    what = f"names {model.revision!r}, which is no commit" if model.revision else "names no commit"
    named = "COMMIT"
    with suppress(BundleError):
        named = listing(model).commit
    example = HubModel(model.owner, model.name, named, model.path)
    return f"model {str(model)!r} {what}, and its files may change: give the 40 digits of one, as {str(example)!r}"


@dataclass(slots=True)
class _Digest:
    """Digest of a file's bytes as the hub states it: SHA-256 of a large one, git's blob id of the others."""

    file: Listed

    def of(self, source: BinaryIO, target: BinaryIO | None = None) -> str:
        """Read at most one byte more than the file has, and copy it where a target is given."""
        if self.file.sha256 is not None:
            digest = hashlib.sha256()
        else:
            digest = hashlib.sha1(b"blob %d\0" % self.file.size, usedforsecurity=False)
        left = self.file.size + 1
        while left and (piece := source.read(min(left, _PIECE))):
            left -= len(piece)
            digest.update(piece)
            if target is not None:
                target.write(piece)
        return digest.hexdigest()


def _place(model: HubModel, file: Listed, path: Path) -> None:
    """Put a file at its name, as a link to its blob."""
    blob = cache_folder() / "hub" / "blobs" / file.digest
    if not _is_whole(file, blob):
        blob.parent.mkdir(parents=True, exist_ok=True)
        write_whole(blob, lambda target: _download(model, file, target))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not path.is_symlink() and path.samefile(blob):
        return
    path.unlink(missing_ok=True)
    try:
        os.link(blob, path)
    except OSError:  # a file system without links
        shutil.copyfile(blob, path)


def _is_whole(file: Listed, blob: Path) -> bool:
    if blob.is_symlink() or not blob.is_file() or blob.stat().st_size != file.size:
        return False
    with blob.open("rb") as source:
        return _Digest(file).of(source) == file.digest


def _download(model: HubModel, file: Listed, target: BinaryIO) -> None:
    with open_file(model, file) as source:
        found = _Digest(file).of(source, target)
    if found != file.digest:
        raise BundleError(
            f"model {str(model)!r}: {file.name} came with the digest {found[:12]}, not {file.digest[:12]} as the hub "
            f"lists it: it was cut short or changed on its way; run the same command again"
        )
