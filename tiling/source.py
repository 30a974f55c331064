"""Any supported image file as levels, bands and boxes of pixels."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import dask.array as da
import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.escaping import is_utf8
from tiling.geometry import Box
from tiling.sources.damage import DamagedSegment
from tiling.sources.facts import Georeference, Level, Reader
from tiling.sources.fingerprint import fingerprint_of
from tiling.sources.limits import LIBRARY_ERRORS, one_line, reason
from tiling.sources.opening import open_reader, share_reader
from tiling.sources.present import Fill, filled, read_present
from tiling.sources.series import FileImage
from tiling.sources.shared import SharedReader
from tiling.sources.tiff.reader import TiffReader
from tiling.sources.version import UNKNOWN, ImageFiles
from tiling.sources.viewed import ViewReader
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, place_of
from tiling.view import View

__all__ = ["Georeference", "ImageSource", "Level", "open_source"]


class ImageSource:
    """An image, or a view of it: what is known of it, and its pixels by level and box.

    Safe to use from several threads. Pickles to its path and facts; another process opens the file on its
    first read, and refuses it if it is no longer the same size, or in an object store no longer the same object.
    """

    def __init__(
        self, path: Place, reader: Reader, identity: str, view: View | None = None, fill: Fill | None = None
    ) -> None:
        self._path = path
        self._view = view
        self._fill = fill
        self._facts = reader.facts
        self._identity = identity
        self._reader: Reader | None = reader
        self._lock = threading.Lock()
        self._fingerprint: str | None = None
        self._version: str | None = None

    @property
    def path(self) -> Place:
        """The file's absolute path, or its URL's place."""
        return self._path

    @property
    def format(self) -> str:
        """aperio-svs, tiff, ome-tiff, imagej-tiff, qptiff, geotiff, ome-zarr-0.4 or -0.5, png, jpeg, jpeg2000, webp,
        or the scanner's maker as OpenSlide calls it: hamamatsu, mirax, leica, dicom…
        """
        return self._facts.format

    @property
    def is_slide(self) -> bool:
        """True if the format is one that slide scanners alone write, whatever the file says of its pixels' size."""
        return self._facts.is_slide

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, alpha excluded: colours, OME channel names, or numbers from 1."""
        return self._facts.bands

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the pixels, in the machine's byte order."""
        return self._facts.dtype

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, largest first; each level is a true downsample of level 0."""
        return self._facts.levels

    @property
    def photometric(self) -> str:
        """Photometric interpretation of the samples, before they became bands: rgb, ycbcr, palette, min-is-white…"""
        return self._facts.photometric

    @property
    def nodata(self) -> float | None:
        """The value that means no data (GDAL_NODATA), NaN included."""
        return self._facts.nodata

    @property
    def georeference(self) -> Georeference | None:
        """Georeference of level 0."""
        return self._facts.georeference

    def origin_px(self, level: int) -> tuple[float, float]:
        """Centre of a level's first pixel in the file's own coordinates, in its pixels, y before x."""
        origins = self._facts.origins_px
        return origins[level] if level < len(origins) else (0.0, 0.0)

    @property
    def bounds_px(self) -> tuple[int, int]:
        """The pixel of the file's level 0 that QuPath calls the first, y before x: where the scanner's bounds begin."""
        return self._facts.bounds_px

    @property
    def orientation(self) -> int:
        """Orientation that a photograph's viewer gives the image (TIFF 6.0, EXIF): 1 to 8; 1 leaves it as stored."""
        return self._facts.orientation

    @property
    def has_alpha(self) -> bool:
        """True if the file has an alpha channel, which `bands` leaves out."""
        return self._facts.has_alpha

    @property
    def alpha(self) -> tuple[str, ...]:
        """Names of the alpha channels, which a view's bands may count after the bands."""
        return self._facts.alpha

    @property
    def scales(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset of each band, which make its values of the stored ones; empty where the file says none."""
        return self._facts.scales

    @property
    def resampled(self) -> tuple[tuple[str, str], ...]:
        """Bands of a scene that don't lie on its grid as they are, each with how they are resampled."""
        return self._facts.resampled

    @property
    def view(self) -> View | None:
        """View of the file that it gives; None for all of it as it is."""
        return self._view

    @property
    def focal_planes(self) -> int:
        """Number of focal planes in the file, of which one is read."""
        return self._facts.focal_planes

    @property
    def times(self) -> int:
        """Number of points in time in the file, of which one is read."""
        return self._facts.times

    @property
    def images(self) -> tuple[FileImage, ...]:
        """The images of a file that has several; empty where it has one."""
        return self._facts.images

    @property
    def series(self) -> int:
        """The number of the one that is read, from 0."""
        return self._facts.series

    @property
    def has_mask(self) -> bool:
        """True if the file says which pixels hold data, so that `read_mask` may tell."""
        return self._facts.has_mask

    @property
    def may_lack_data(self) -> bool:
        """True if some pixel may hold no data, by a no-data value, a mask, alpha or NaN."""
        return self._facts.may_lack_data

    @property
    def fill(self) -> Fill | None:
        """Values that `read_filled` puts in place of no data, one per band; None where there is nothing to fill."""
        return self._fill

    @property
    def memory_bytes(self) -> int:
        """The most memory that reading holds in one process, besides the boxes that it returns."""
        return self._facts.memory_bytes

    def read(self, level: int, box: Box) -> npt.NDArray[np.generic]:
        """Read a box that lies inside the level.

        Returns `(height, width, band)` of `dtype`, C-contiguous. `SourceError` where the box is not inside
        the level or a segment under it can't be decoded; it names level, box and segment.
        """
        self._expect_inside(level, box)
        reader = self._opened()
        try:
            return reader.read(level, box)
        except (SourceError, *LIBRARY_ERRORS) as error:
            raise SourceError(f"{self._path}: level {level}, box {box}: {reason(error)}") from error

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels `(y, x)` of a box that hold data, by the file's own mask or alpha; None without one.

        Raises as `read` does.
        """
        self._expect_inside(level, box)
        reader = self._opened()
        try:
            return reader.read_mask(level, box)
        except (SourceError, *LIBRARY_ERRORS) as error:
            raise SourceError(f"{self._path}: mask of level {level}, box {box}: {reason(error)}") from error

    def read_present(self, level: int, box: Box) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_] | None]:
        """Pixels of a box as `read` gives them, and which of their values are data (`tiling.sources.present`).

        The second is `(y, x, band)`, or `(y, x, 1)` where all bands share it; None where all values are data. Raises as
        `read` does.
        """
        if not self.may_lack_data:
            return self.read(level, box), None
        self._expect_inside(level, box)
        reader = self._opened()
        try:
            if isinstance(reader, ViewReader):
                return reader.read_present(level, box)
            return read_present(reader, level, box, None)
        except (SourceError, *LIBRARY_ERRORS) as error:
            raise SourceError(f"{self._path}: level {level}, box {box}: {reason(error)}") from error

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

    def damaged_segments(self, level: int) -> list[DamagedSegment]:
        """Segments of a level of the file that don't decode, found by decoding all of them.

        None of formats whose segments are not decoded one by one here: what they hold fails where it is read.
        """
        reader = self._opened()
        file = reader.file if isinstance(reader, ViewReader) else reader
        file = file.file if isinstance(file, SharedReader) else file
        return file.damaged_segments(level) if isinstance(file, TiffReader) else []

    def lazy(self, level: int) -> da.Array:
        """The level as a dask array `(y, x, band)` whose chunks are whole strips or tiles of the file."""
        whole = self._level(level)
        tall, wide = self._opened().chunk_px(level)
        chunks = (
            _split(whole.height, tall),
            _split(whole.width, wide),
            (len(self.bands),),
        )
        empty = np.empty((0, 0, 0), self.dtype)
        return cast("da.Array", da.map_blocks(_read_chunk, self, level, chunks=chunks, dtype=self.dtype, meta=empty))

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
        """The version that the files have now; of objects, whose fingerprint is of their tags, none besides that."""
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

    def describe(self) -> str:
        """One line for people: format, size, bands, levels, pixel size."""
        first = self.levels[0]
        size = first.pixel_size
        pixel = f", {size.x:.4g} x {size.y:.4g} {size.unit}/px" if size else ", pixel size unknown"
        levels = f"{len(self.levels)} level{'s' if len(self.levels) > 1 else ''}"
        bands = "/".join(self.bands[:6]) + ("/…" if len(self.bands) > 6 else "")
        stack = f", first of {self._facts.pages} pages" if self._facts.pages > 1 else ""
        image = f", image {self.series} of {len(self.images)}" if self.images else ""
        return f"{self.format} {first.width} x {first.height} px, {bands} {self.dtype}, {levels}{pixel}{stack}{image}"

    def viewed(self, view: View | None, fill: Fill | None = None) -> ImageSource:
        """A view of the same image, closed on its own; of the file that is open here, where that gives it.

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


def _split(length: int, chunk: int) -> tuple[int, ...]:
    whole, rest = divmod(length, chunk)
    return (chunk,) * whole + ((rest,) if rest else ())


def _read_chunk(
    source: ImageSource, level: int, block_info: Mapping[Any, Any] | None = None
) -> npt.NDArray[np.generic]:
    """One chunk of `ImageSource.lazy`; dask passes its place in `block_info`."""
    if not block_info:
        return np.empty((0, 0, 0), source.dtype)
    (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
    return source.read(level, Box(y0, x0, y1, x1))
