"""Overlapping tiles in a Zarr array `(tile, y, x, band)`, one tile per chunk and file.

A staged tile is what a worker loads with one read of one chunk: decoded, gathered from the image's own
tiling, and mirrored where the read reaches beyond the image. Staged tiles are disposable.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from tiling.errors import StagingError, StorageError
from tiling.geometry import Box
from tiling.plan import Tile, TilePlan
from tiling.runs.no_data import pack
from tiling.storage.chunk import ChunkCodec
from tiling.storage.disk import is_partial, read_passing, spare, write_passing
from tiling.storage.local_disk import is_local_disk
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import ABSENT, Place
from tiling.storage.zarr_store import zarr_at

if TYPE_CHECKING:
    from tiling.source import ImageSource


logger = logging.getLogger(__name__)

STAGED_NAME = "staged.zarr"
"""The staged array's, in its run folder."""
KEEPS = "keeps tiles that are done"
SPARES = "spares"
"""The folder in the array's that keeps files of done tiles for the next ones."""
MOST_SPARES = 4
"""Of such files."""
_CHUNK = re.compile(r"c\.([0-9]+)\.0\.0\.0")
"""The file of a tile, in the array's own folder: a file and three folders of its own take longer to make than to write
the tile.
"""


def load_tile(source: ImageSource, level: int, plan: TilePlan, tile: Tile) -> NDArray[np.generic]:
    """Read a tile from the image.

    Returns:
        The read region `(y, x, band)` in the image's dtype, packed with where it holds data (`tiling.runs.no_data`)
        where the source fills what holds none; mirrored where it reaches beyond the image (about the outermost pixel,
        which itself is not repeated; forth and back where the image is smaller than that).

    Raises:
        SourceError: a part of the image that doesn't decode.
    """
    read, (height, width) = tile.read, plan.extent
    if plan.image.contains(read):
        pixels = _read(source, level, read)
        source.evict(level, plan.last_read(tile))
        return pixels
    rows, cols = mirrored(read.y0, read.y1, height), mirrored(read.x0, read.x1, width)
    seen = Box(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
    pixels = _read(source, level, seen)
    source.evict(level, plan.last_read(tile))
    return shown(pixels, rows - seen.y0, cols - seen.x0)


def shown(pixels: NDArray[np.generic], rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.generic]:
    """Pixels `(y, x, band)` at rows and columns, of which most follow each other: those are copied as a whole."""
    turns = np.flatnonzero(np.diff(cols, prepend=cols[0], append=cols[-1]) != 1)
    longest = int(np.argmax(np.diff(turns)))
    start, stop = int(turns[longest]), int(turns[longest + 1])
    if stop - start == len(cols):
        return pixels[rows, cols[0] : cols[0] + stop]
    tall = np.empty((pixels.shape[0], len(cols), pixels.shape[2]), pixels.dtype)
    tall[:, :start], tall[:, stop:] = pixels[:, cols[:start]], pixels[:, cols[stop:]]
    tall[:, start:stop] = pixels[:, cols[start] : cols[start] + stop - start]
    return tall[rows]


def _read(source: ImageSource, level: int, box: Box) -> NDArray[np.generic]:
    pixels, held = source.read_filled(level, box)
    return pixels if source.fill is None else pack(pixels, held)


def mirrored(start: int, stop: int, extent: int) -> NDArray[np.int64]:
    """Pixels of an extent that the positions `start` to `stop` show, when it is mirrored about its outermost ones."""
    period = max(1, 2 * (extent - 1))
    places = np.arange(start, stop) % period
    return np.minimum(places, period - places) if extent > 1 else np.zeros_like(places)


class StagedTiles:
    """The staged array of a run."""

    def __init__(self, path: Place, array: zarr.Array[Any]) -> None:
        self._path = path
        self._array = array
        self._codec = ChunkCodec.of(array)
        # Compressed tiles differ in size, and lie where a rename may take a round trip.
        recycles = isinstance(path, Path) and self._codec is not None and not self._codec.compresses
        self._spares = path / SPARES if isinstance(path, Path) and recycles and _is_own(path / SPARES) else None

    @classmethod
    def create(cls, path: Place, plan: TilePlan, bands: int, dtype: DTypeLike, *, keep: bool = False) -> StagedTiles:
        """Open the array for a plan, or make it where there is none; staged tiles that it holds stay.

        `keep` says whether tiles stay too when they are done; the array remembers it, for workers open it by its place.
        One of an earlier version, whose tiles have folders of their own, is removed first.
        """
        if (path / "zarr.json").is_file():
            staged = cls.open(path)
            if staged._array.metadata.encode_chunk_key((0, 0, 0, 0)) == _chunk_name(0):
                if staged.keeps != keep:
                    staged._array.update_attributes({KEEPS: keep})
                return cls.open(path)
            remove_staged(path)
        height, width = plan.read_shape
        try:
            array = zarr.create_array(
                zarr_at(path),
                shape=(plan.count, height, width, bands),
                chunks=(1, height, width, bands),
                chunk_key_encoding={"name": "default", "separator": "."},
                dtype=np.dtype(dtype),
                compressors=_compressors(path, keep=keep),
                fill_value=0,
                config={"write_empty_chunks": True},
                dimension_names=("tile", "y", "x", "band"),
                attributes={KEEPS: keep},
            )
            if isinstance(path, Path) and not keep:
                (path / SPARES).mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path, array)

    @classmethod
    def open(cls, path: Place) -> StagedTiles:
        array = zarr.open_array(zarr_at(path), mode="r+", zarr_format=3)
        # A black tile is a tile too. An array that is opened forgets this part of a configuration.
        return cls(path, array.with_config({"write_empty_chunks": True}))

    def write(self, index: int, tile_HWC: NDArray[np.generic]) -> None:
        """Write one tile, whole or not at all.

        Raises:
            StagingError: the disk is full or not writable.
        """
        if isinstance(self._path, Path) and not self._path.is_dir():  # Zarr would make the whole run folder anew
            gone = errno.ENOENT
            raise _unwritable(self._path, OSError(gone, f"{os.strerror(gone)}: the run was removed or moved"))
        chunk = self._chunk(index)
        try:
            if self._codec is None:
                self._array[index] = tile_HWC
            elif isinstance(chunk, Path):
                write_passing(chunk, self._codec.encode(tile_HWC), self._spares)
            else:
                chunk.write_bytes(b"".join(self._codec.encode(tile_HWC)))
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def read(self, index: int) -> NDArray[np.generic]:
        """Read one tile `(y, x, band)`.

        Raises:
            StagingError: the tile isn't staged (an absent chunk would otherwise read as black pixels), or what is there
                is no longer what was written.
        """
        try:
            if self._codec is not None:
                return self._codec.decode(_bytes_at(self._chunk(index)))[0]
            tile_HWC = cast("NDArray[np.generic]", self._array[index])
        except ABSENT as error:
            raise self._missing(index) from error
        except (ValueError, RuntimeError) as error:
            raise StagingError(f"tile {index} can't be read from {self._path} ({error}); stage it again") from error
        # Looked at afterwards: another worker with the same tile may have finished and discarded it meanwhile.
        if not self.holds(index):
            raise self._missing(index)
        return tile_HWC

    def _missing(self, index: int) -> StagingError:
        return StagingError(f"tile {index} is not staged in {self._path}; stage it before it is read")

    def holds(self, index: int) -> bool:
        return self._chunk(index).is_file()

    @property
    def keeps(self) -> bool:
        """True if tiles that are done stay."""
        return bool(self._array.attrs.get(KEEPS, False))

    def discard(self, index: int) -> None:
        """Give a done tile's disk space back, but for an array that keeps them."""
        if self.keeps:
            return
        chunk = self._chunk(index)
        with suppress(StorageError):  # it goes with the rest when the mask is complete
            if isinstance(chunk, Path) and self._spares is not None:
                spare(chunk, self._spares, MOST_SPARES)
            else:
                chunk.unlink(missing_ok=True)

    def _chunk(self, index: int) -> Place:
        return self._path / _chunk_name(index)


def _chunk_name(index: int) -> str:
    return f"c.{index}.0.0.0"


def _is_own(folder: Path) -> bool:
    """True of a folder that no link leads out of the array."""
    return folder.is_dir() and not folder.is_symlink()


def _compressors(path: Place, *, keep: bool) -> list[BloscCodec | Crc32cCodec]:
    """Codecs of a new array: a checksum, and compression where tiles stay or don't lie on a disk of this machine.

    Those that pass such a disk live for seconds, mostly in memory: their size hardly counts, and compressing them takes
    longer than writing them as they are. Elsewhere lz4 without shuffle is the quickest. Without the checksum a file
    that was cut short could give wrong pixels without a word.
    """
    passes = not keep and isinstance(path, Path) and is_local_disk(path)
    return [Crc32cCodec()] if passes else [BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle"), Crc32cCodec()]


def _bytes_at(chunk: Place) -> NDArray[np.uint8]:
    """All of a chunk; raises what tells that it is absent."""
    if not isinstance(chunk, Path):
        return np.frombuffer(bytearray(chunk.read_bytes()), np.uint8)
    return read_passing(chunk)


def remove_staged(path: Place) -> None:
    """Remove the array and nothing else: what others have put beside it stays, and is named.

    The array's name may be a link that its owner set, to a folder on a fast disk: the link and that folder stay.
    """
    if isinstance(path, ObjectPath):
        path.delete_tree()
        return
    (path / "zarr.json").unlink(missing_ok=True)  # without it no half of the array counts as one
    left = [each for name, depth in _FOLDERS.items() for each in _emptied(path / name, depth)] + _emptied(path, depth=0)
    if not path.is_symlink() and path.is_dir() and not left:
        path.rmdir()
    if left:
        named = ", ".join(str(each) for each in left[:3])
        logger.warning("%s holds %d files that are not ours (%s): they are left there", path, len(left), named)


_FOLDERS = {SPARES: 1, "c": 4}
"""Folders in the array's, and how far below each its files lie: those of tiles in arrays of earlier versions."""


def _emptied(folder: Path, depth: int) -> list[Path]:
    """Remove our files from a folder, and the folders that are empty then; returns what is not ours.

    Files lie `depth` levels below, the name of each folder and file a number; of the array's own folder, depth 0, the
    chunks are ours, and the folders remain.
    """
    left: list[Path] = []
    if depth and folder.is_symlink():
        return [folder]
    for entry in [*folder.iterdir()] if folder.is_dir() else ():
        is_folder = entry.is_dir() and not entry.is_symlink()
        is_file = entry.name.isdecimal() if depth == 1 else depth == 0 and _CHUNK.fullmatch(entry.name) is not None
        if depth > 1 and is_folder and entry.name.isdecimal():
            left += _emptied(entry, depth - 1)
        elif not is_folder and (is_file or is_partial(entry.name)):
            entry.unlink(missing_ok=True)
        elif not (depth == 0 and entry.name in _FOLDERS):
            left.append(entry)
    if depth:
        with suppress(OSError):  # gone, or NFS keeps a file there that somebody still reads
            folder.rmdir()
    return left


def staged_sizes(path: Place) -> dict[int, int]:
    """Bytes of each staged tile of an array, of none where there is no array. In a bucket one listing tells all."""
    if isinstance(path, ObjectPath):
        start = len(path.key) + 1
        found = ((place.key[start:], facts.size_bytes) for place, facts in path.listed())
        return {int(tile[1]): size for name, size in found if (tile := _CHUNK.fullmatch(name))}
    sizes: dict[int, int] = {}
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        for entry in entries:
            if tile := _CHUNK.fullmatch(entry.name):  # what has another name isn't ours
                with suppress(FileNotFoundError):  # its space was given back meanwhile
                    sizes[int(tile[1])] = entry.stat().st_size
    return sizes


def _unwritable(path: Place, error: OSError) -> StagingError:
    return StagingError(
        f"staging can't write to {path} ({error.strerror or error}): make space or choose another --out, then run the "
        f"same command again; finished tiles are kept (--no-staging needs no space for staged tiles)"
    )
