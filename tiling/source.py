"""Any supported image file as levels, bands and boxes of pixels."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import dask.array as da
import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError, TilingError
from tiling.geometry import Box
from tiling.objects import ObjectPath
from tiling.sources.facts import Georeference, Level, Reader
from tiling.sources.file import ImageFile, open_file
from tiling.sources.limits import LIBRARY_ERRORS, one_line, reason
from tiling.sources.raster import RasterReader
from tiling.sources.remote import BLOCK_BYTES, RemoteFile
from tiling.sources.tiff import TiffReader
from tiling.storage import Place, place_of

__all__ = ["Georeference", "ImageSource", "Level", "open_source"]

_READ_BYTES = 4 * 1024**2
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RASTER_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jpeg2000",
}
_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}


class ImageSource:
    """An image file: what is known of it, and its pixels by level and box.

    Safe to use from several threads. Pickles to its path and facts; another process opens the file on its
    first read, and refuses it if it is no longer the same size, or in an object store no longer the same object.
    """

    def __init__(self, path: Place, reader: Reader, identity: str) -> None:
        self._path = path
        self._facts = reader.facts
        self._identity = identity
        self._reader: Reader | None = reader
        self._lock = threading.Lock()
        self._fingerprint: str | None = None

    @property
    def path(self) -> Place:
        """The file's absolute path, or its URL's place."""
        return self._path

    @property
    def format(self) -> str:
        """aperio-svs, tiff, ome-tiff, imagej-tiff, geotiff, png, jpeg, jpeg2000 or webp."""
        return self._facts.format

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
        """What the file says of its samples, before they became bands: rgb, ycbcr, palette, min-is-white…"""
        return self._facts.photometric

    @property
    def nodata(self) -> float | None:
        """The value that means no data (GDAL_NODATA), NaN included."""
        return self._facts.nodata

    @property
    def georeference(self) -> Georeference | None:
        """Where level 0 lies on the earth."""
        return self._facts.georeference

    @property
    def has_alpha(self) -> bool:
        """Whether the file has an alpha channel, which `bands` leaves out."""
        return self._facts.has_alpha

    @property
    def memory_bytes(self) -> int:
        """The most memory that reading holds in one process, besides the boxes that it returns."""
        return self._facts.memory_bytes

    def read(self, level: int, box: Box) -> npt.NDArray[np.generic]:
        """Read a box that lies inside the level.

        Returns `(height, width, band)` of `dtype`, C-contiguous. `SourceError` where the box is not inside
        the level or a segment under it can't be decoded; it names level, box and segment.
        """
        whole = self._level(level)
        if box.is_empty or not whole.box.contains(box):
            raise SourceError(
                f"{self._path}: box {box} is not inside level {level} of {whole.height} x {whole.width} px"
            )
        reader = self._opened()
        try:
            return reader.read(level, box)
        except (SourceError, *LIBRARY_ERRORS) as error:
            raise SourceError(f"{self._path}: level {level}, box {box}: {reason(error)}") from error

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
        """SHA-256 of the file's content, in hexadecimal; read once, in pieces.

        Of an object that is read over the network, which would have to be read whole for that: of its size, its tag
        (or its time, where the server gives no tag) and its first 64 KiB, after the word `object`.
        """
        if self._fingerprint is None:
            try:
                self._fingerprint = _fingerprint(self._path)
            except OSError as error:
                raise SourceError(f"{self._path}: {one_line(error)}") from error
        return self._fingerprint

    def describe(self) -> str:
        """One line for people: format, size, bands, levels, pixel size."""
        first = self.levels[0]
        size = first.pixel_size
        pixel = f", {size.x:.4g} x {size.y:.4g} {size.unit}/px" if size else ", pixel size unknown"
        levels = f"{len(self.levels)} level{'s' if len(self.levels) > 1 else ''}"
        bands = "/".join(self.bands[:6]) + ("/…" if len(self.bands) > 6 else "")
        stack = f", first of {self._facts.pages} pages" if self._facts.pages > 1 else ""
        return f"{self.format} {first.width} x {first.height} px, {bands} {self.dtype}, {levels}{pixel}{stack}"

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
            "facts": self._facts,
            "identity": self._identity,
            "fingerprint": self._fingerprint,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._path = state["path"]
        self._facts = state["facts"]
        self._identity = state["identity"]
        self._fingerprint = state["fingerprint"]
        self._reader = None
        self._lock = threading.Lock()

    def _level(self, level: int) -> Level:
        if not 0 <= level < len(self.levels):
            raise SourceError(f"{self._path}: there is no level {level}; levels are 0 to {len(self.levels) - 1}")
        return self.levels[level]

    def _opened(self) -> Reader:
        with self._lock:
            if self._reader is None:
                reader, identity = _open_reader(self._path)
                if identity != self._identity or reader.facts != self._facts:
                    reader.close()
                    raise SourceError(f"{self._path}: the file changed after it was opened; start again")
                self._reader = reader
            return self._reader


def open_source(path: str | Place) -> ImageSource:
    """Open an image: a path, or the URL of an object that is read by ranges.

    `SourceError`, on one line, where the file is missing, unreadable, damaged, over a limit or of a kind that
    is not supported; `StorageError` where an object store fails.
    """
    place = place_of(path)
    if isinstance(place, Path):
        place = place.expanduser().absolute()
    return ImageSource(place, *_open_reader(place))


def _open_reader(path: Place) -> tuple[Reader, str]:
    """The reader of a file, and the file's identity."""
    try:
        file = open_file(path)
    except OSError as error:
        raise SourceError(f"{path}: {one_line(error)}") from error
    try:
        return _reader_of(path, file), file.identity
    except OSError as error:
        file.close()
        raise SourceError(f"{path}: {one_line(error)}") from error
    except TilingError:
        file.close()
        raise


def _reader_of(path: Place, file: ImageFile) -> Reader:
    head = file.read(16, 0)
    if not head:
        raise SourceError(f"{path}: the file is empty (0 bytes)")
    if head[:4] in _TIFF_MAGIC:
        return TiffReader(path, file)
    for magic, kind in _RASTER_MAGIC.items():
        if head.startswith(magic):
            return RasterReader(path, file, kind)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return RasterReader(path, file, "webp")
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic):
            raise SourceError(f"{path}: the file is compressed with {kind}; unpack it first")
    raise SourceError(
        f"{path}: not a supported image (it starts with {head[:8].hex(' ')}); use TIFF, SVS, PNG, JPEG, "
        "JPEG 2000 or WebP"
    )


def _fingerprint(path: Place) -> str:
    digest = hashlib.sha256()
    if isinstance(path, ObjectPath):
        file = RemoteFile(path)
        digest.update(f"{file.identity}\n".encode())
        digest.update(file.read(BLOCK_BYTES, 0))
        return f"object {digest.hexdigest()}"
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


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
