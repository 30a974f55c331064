"""Metadata of a pyramid: as it was planned, whether it still is, and what to do where it is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from tiling.errors import RunError
from tiling.storage import zarr_nodes
from tiling.storage.place import ABSENT, Place, read_at, write_atomic

GROUP = "zarr.json"
"""Metadata file of the group itself, without which no pyramid is there."""
_WRITTEN_AT_ONCE = 8


class PyramidMetadata:
    """A pyramid's metadata as it has to be, made in memory: what is lost of it is written without a look at shards.

    Args:
        describe: makes the levels in a group, and gives its OME metadata.
    """

    def __init__(self, describe: Callable[[zarr.Group], dict[str, Any]]) -> None:
        self._files: dict[str, Buffer] = {}
        self.group = zarr.create_group(MemoryStore(self._files), zarr_format=3)
        self.group.attrs["ome"] = describe(self.group)

    def complete(self, path: Place, on_missing: Callable[[zarr.Group], None], *, synced: bool = True) -> None:
        """Write what is missing, if anything is; `on_missing` is called first, for shards may be lost too."""
        if lacking := self.missing(path):
            on_missing(self.group)
            self.write(path, lacking, synced=synced)

    def missing(self, path: Place) -> list[str]:
        """Names of metadata files that aren't there, or place pixels otherwise than planned; the group's own last."""
        return [name for name in sorted(self._files) if not _is_as(self._files[name].to_bytes(), path / name)]

    def altered(self, path: Place) -> list[str]:
        """Names of metadata files that say other names, colours or codecs than planned, which readers take for true."""
        lacking = set(self.missing(path))
        planned = {name: json.loads(found.to_bytes()) for name, found in self._files.items() if name not in lacking}
        return sorted(name for name, said in planned.items() if json.loads(read_at(path / name)) != said)

    def write(self, path: Place, names: Iterable[str], *, synced: bool = True) -> None:
        """Write some of the metadata files, each as it was when the pyramid was made; the group's own last.

        Those of levels are written side by side: each waits for the disk twice, and the disk can take several at once.

        Raises:
            DiskError, LinkError, StorageError: as `write_atomic` does; what was written by then stays.
        """
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)  # a mask is made where its run begins, which may be new
        wanted = set(names)
        with ThreadPoolExecutor(_WRITTEN_AT_ONCE, "overtile-metadata") as threads:
            list(threads.map(partial(self._write, path, synced=synced), sorted(wanted - {GROUP})))
        if GROUP in wanted:
            self._write(path, GROUP, synced=synced)

    def _write(self, path: Place, name: str, *, synced: bool) -> None:
        write_atomic(path / name, self._files[name].to_bytes(), below=path.parent, synced=synced)


def _is_as(planned: bytes, path: Place) -> bool:
    """True if metadata says what was planned; names, colours and codecs are left as they are found."""
    try:
        return _layout(read_at(path)) == _layout(planned)
    except (*ABSENT, ValueError, RecursionError, KeyError, IndexError, TypeError):
        return False


def _layout(metadata: bytes) -> tuple[Any, ...]:
    """Layout of an array's pixels, or of a group's levels."""
    found = json.loads(metadata)
    if found["node_type"] == "group":
        scales = found["attributes"]["ome"]["multiscales"]
        of_all = [each.get("coordinateTransformations") for each in scales]
        return found["zarr_format"], len(scales), scales[0]["datasets"], scales[0]["axes"], of_all
    keys = ("zarr_format", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value")
    return tuple(found[key] for key in keys)


def is_made(path: Place) -> bool:
    """True if a pyramid was made to the end: its group is written first, and what describes the levels last."""
    try:
        return "ome" in json.loads(read_at(path / "zarr.json")).get("attributes", {})
    except FileNotFoundError:
        return False
    except (IsADirectoryError, ValueError, RecursionError, AttributeError):
        return True  # damaged since: opening it tells how


def open_group(path: Place, what: str, *, read_only: bool) -> zarr.Group:
    """The group of a pyramid; RunError where there is none."""
    try:
        return zarr_nodes.open_group(path, read_only=read_only)
    except (FileNotFoundError, KeyError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise RunError(f"{path} holds no {what} ({error}); run overtile segment on the image again") from error


@contextmanager
def damaged_metadata(path: Place) -> Generator[None]:
    """Say of metadata that is lost or isn't what was written what helps."""
    try:
        yield
    except (FileNotFoundError, KeyError, ValueError, RecursionError, TypeError, IndexError) as error:
        raise RunError(
            f"{path} has lost metadata, or holds some that is damaged ({error}): its levels can't be opened; run "
            f"overtile segment on the image again, which makes it anew and keeps the tiles"
        ) from error
