"""Any supported image file as levels, bands and boxes of pixels."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.escaping import is_utf8
from tiling.geometry import Box
from tiling.sources.damage import DamagedSegment
from tiling.sources.described import DescribedImage
from tiling.sources.facts import Georeference, Level, Reader
from tiling.sources.fingerprint import fingerprint_of
from tiling.sources.limits import one_line, source_errors
from tiling.sources.opening import open_reader, share_reader
from tiling.sources.present import Fill, filled, read_present
from tiling.sources.raster import RasterReader
from tiling.sources.scene.content import FORMAT as SCENE
from tiling.sources.shared import SharedReader
from tiling.sources.tiff.reader import TiffReader
from tiling.sources.version import UNKNOWN, ImageFiles
from tiling.sources.viewed import ViewReader
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, place_of
from tiling.view import View

if TYPE_CHECKING:
    import dask.array as da

    from tiling.sources.scene.reader import SceneReader

LARGEST_CHUNK_PX = 1 << 22

__all__ = ["Georeference", "ImageSource", "Level", "open_source"]


class ImageSource(DescribedImage):
    """An image, or a view of it: its description, and its pixels by level and box.

    Safe to use from several threads. Pickles to its path and facts; another process opens the file on its
    first read, and refuses it if it is no longer the same size, or in an object store no longer the same object.
    """

    def __init__(
        self, path: Place, reader: Reader, identity: str, view: View | None = None, fill: Fill | None = None
    ) -> None:
        super().__init__(path, reader.facts)
        self._view = view
        self._fill = fill
        self._identity = identity
        self._reader: Reader | None = reader
        self._lock = threading.Lock()
        self._fingerprint: str | None = None
        self._version: str | None = None

    @property
    def view(self) -> View | None:
        """View of the file that it gives; None for all of it as it is."""
        return self._view

    @property
    def fill(self) -> Fill | None:
        """Values that `read_filled` puts in place of no data, one per band; None where there is nothing to fill."""
        return self._fill

    def read(self, level: int, box: Box) -> npt.NDArray[np.generic]:
        """Read a box that lies inside the level.

        Returns `(height, width, band)` of `dtype`, C-contiguous. `SourceError` where the box is not inside
        the level or a segment under it can't be decoded; it names level, box and segment.
        """
        self._expect_inside(level, box)
        reader = self._opened()
        with source_errors(f"{self._path}: level {level}, box {box}"):
            return reader.read(level, box)

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels `(y, x)` of a box that hold data, by the file's own mask or alpha; None without one.

        Raises as `read` does.
        """
        self._expect_inside(level, box)
        reader = self._opened()
        with source_errors(f"{self._path}: mask of level {level}, box {box}"):
            return reader.read_mask(level, box)

    def read_present(self, level: int, box: Box) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_] | None]:
        """Pixels of a box as `read` gives them, and which of their values are data (`tiling.sources.present`).

        The second is `(y, x, band)`, or `(y, x, 1)` where all bands share it; None where all values are data. Raises as
        `read` does.
        """
        if not self.may_lack_data:
            return self.read(level, box), None
        self._expect_inside(level, box)
        reader = self._opened()
        with source_errors(f"{self._path}: level {level}, box {box}"):
            if isinstance(reader, ViewReader):
                return reader.read_present(level, box)
            return read_present(reader, level, box, None)

    def read_filled(self, level: int, box: Box) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_] | None]:
        """Pixels of a box with `fill` in place of what is no data, and which pixels `(y, x)` hold data.

        None in place of the second where all do. Raises as `read` does.
        """
        if self._fill is None:
            return self.read(level, box), None
        pixels, held = self.read_present(level, box)
        if held is None:
            return pixels, None
        held_HW = np.asarray(held.any(axis=-1))
        return filled(pixels, held, self._fill), None if held_HW.all() else held_HW

    def evict(self, level: int, box: Box) -> None:
        """Give up what is held decoded of the segments of the file that touch a box and end inside of it.

        They are decoded again where they are read again. A box that reaches the level's lower or right side holds all
        segments there. What was closed meanwhile holds nothing, and isn't opened for this.
        """
        with self._lock:
            reader = self._reader
        if reader is None:
            return
        file, place = _file_of(reader), (level, box)
        if isinstance(reader, ViewReader):
            place = reader.in_file(level, box)
        if isinstance(file, TiffReader) and place is not None:
            file.evict(*place)

    def damaged_segments(self, level: int) -> list[DamagedSegment]:
        """Segments of a level of the file that don't decode, found by decoding all of them.

        None of formats whose segments are not decoded one by one here: what they hold fails where it is read.
        """
        tiff = self._tiff()
        return [] if tiff is None else tiff.damaged_segments(level)

    def segment_size(self) -> tuple[int, int] | None:
        """Width of what is decoded at once of the file, and its bytes; None where that isn't known, or no more than is
        asked for.
        """
        tiff = self._tiff()
        return None if tiff is None else tiff.segment_size

    def is_read_by_parts(self, level: int) -> bool:
        """True if a process that reads a part of a level needn't decode much more of the file."""
        tall, wide = self._opened().chunk_px(level)
        return tall * wide <= LARGEST_CHUNK_PX and not isinstance(self._file(), RasterReader)

    def files(self) -> dict[str, Box]:
        """Boxes on the grid of a scene that its files fill, by their names; none of an image that is one file.

        Of files with the same box, such as those of single bands, the first is there.
        """
        file = self._file()
        return cast("SceneReader", file).files() if file.facts.format == SCENE else {}

    def _tiff(self) -> TiffReader | None:
        """The reader of the file itself, where that is a TIFF."""
        file = self._file()
        return file if isinstance(file, TiffReader) else None

    def _file(self) -> Reader:
        """The reader of the file itself, without the view."""
        return _file_of(self._opened())

    def lazy(self, level: int) -> da.Array:
        """The level as a dask array `(y, x, band)` whose chunks are whole strips or tiles of the file."""
        from tiling.sources.lazy import lazy_level  # takes a second of a processor, where only a few ask for it

        self._level(level)
        return lazy_level(self, level, self._opened().chunk_px(level))

    def fingerprint(self) -> str:
        """Fingerprint of the content, the same for every view of it (`tiling.sources.fingerprint`)."""
        if self._fingerprint is None:
            try:
                self._fingerprint, self._version = self._known()
            except OSError as error:
                raise SourceError(f"{self._path}: {one_line(error)}") from error
        return self._fingerprint

    def version(self) -> str:
        """Version of the files that have this fingerprint (`tiling.sources.version`)."""
        self.fingerprint()
        assert self._version is not None
        return self._version

    def current_version(self) -> str:
        """Version that the files have now; unknown in an object store, where the fingerprint follows from the tags."""
        if isinstance(self._path, ObjectPath):
            return UNKNOWN
        try:
            return ImageFiles(self._path, self.format).whole()
        except OSError as error:
            raise SourceError(f"{self._path}: {one_line(error)}") from error

    def _known(self) -> tuple[str, str]:
        """The fingerprint and the version of the files that it is of: theirs before and after they were read."""
        if isinstance(self._path, ObjectPath):
            return fingerprint_of(self._path, self.format), UNKNOWN
        files = ImageFiles(self._path, self.format)
        for _ in range(3):
            version = files.whole()
            found = fingerprint_of(self._path, self.format)
            if files.whole() == version:
                return found, version
        raise SourceError(f"{self._path}: is being written while it is read; segment it when it is whole")

    def viewed(self, view: View | None, fill: Fill | None = None) -> ImageSource:
        """A view of the same image, closed on its own; it shares the file that is open here where that is possible.

        Raises as `open_source` does.
        """
        with self._lock:
            shared = None if self._reader is None else share_reader(self._path, self._reader, view)
        if shared is None:
            return open_source(self._path, view, fill)
        return ImageSource(self._path, shared, self._identity, view, fill)

    def close(self) -> None:
        """Release the file once no other thread reads from it; a later read opens it again."""
        with self._lock:
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ImageSource {self._path.name}: {self.describe()}>"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self._path,
            "view": self._view,
            "fill": self._fill,
            "facts": self._facts,
            "identity": self._identity,
            "fingerprint": self._fingerprint,
            "version": self._version,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._path = state["path"]
        self._view = state["view"]
        self._fill = state["fill"]
        self._facts = state["facts"]
        self._identity = state["identity"]
        self._fingerprint = state["fingerprint"]
        self._version = state["version"]
        self._reader = None
        self._lock = threading.Lock()

    def _expect_inside(self, level: int, box: Box) -> None:
        whole = self._level(level)
        if box.is_empty or not whole.box.contains(box):
            raise SourceError(
                f"{self._path}: box {box} is not inside level {level} of {whole.height} x {whole.width} px"
            )

    def _level(self, level: int) -> Level:
        if not 0 <= level < len(self.levels):
            raise SourceError(f"{self._path}: there is no level {level}; levels are 0 to {len(self.levels) - 1}")
        return self.levels[level]

    def _opened(self) -> Reader:
        with self._lock:
            if self._reader is None:
                reader, identity = open_reader(self._path, self._view)
                if identity != self._identity or not reader.facts.is_same(self._facts):
                    reader.close()
                    raise SourceError(f"{self._path}: the file changed after it was opened; start again")
                self._reader = reader
            return self._reader


def _file_of(reader: Reader) -> Reader:
    file = reader.file if isinstance(reader, ViewReader) else reader
    return file.file if isinstance(file, SharedReader) else file


def open_source(path: str | Place, view: View | None = None, fill: Fill | None = None) -> ImageSource:
    """Open an image: a path, or the URL of an object that is read by ranges, or of an OME-Zarr; or a view of it.

    `fill` is what `read_filled` puts in place of what is no data, one value per band.

    `SourceError`, on one line, where the file is missing, unreadable, damaged, over a limit or of a kind that
    is not supported, or where the view doesn't lie on it; `StorageError` where an object store fails.
    """
    place = place_of(path)
    if not is_utf8(place):
        raise SourceError(f"{str(place)!a}: its name is not UTF-8, and no run could name its image; rename it")
    if isinstance(place, Path):
        place = place.expanduser().absolute()
    return ImageSource(place, *open_reader(place, view), view, fill)
