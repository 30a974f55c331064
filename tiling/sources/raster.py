"""Images without access inside: PNG, JPEG, JPEG 2000 and WebP files are decoded once, whole, within a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources import codestream
from tiling.sources.facts import ImageFacts, make_levels
from tiling.sources.limits import MAX_BANDS, MAX_DECODED_BYTES, MAX_ENCODED_BYTES, source_errors

Pixels = npt.NDArray[np.generic]

_CHUNK_PX = 1024
_FRAMES: dict[str, Callable[[bytes], codestream.Frame]] = {
    "png": codestream.png_frame,
    "jpeg": codestream.jpeg_frame,
    "jpeg2000": codestream.jpeg2000_frame,
    "webp": codestream.webp_frame,
}


class RasterReader:
    """A file whose image is decoded whole on the first read. Safe to call from several threads at once.

    Transparency is dropped; the orientation that cameras write is not applied: pixels stay as stored.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        with source_errors(str(path)):
            self._facts = self._describe(self._load())

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the image."""
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decoded(self._load())
        return np.ascontiguousarray(self._pixels[box.slices])

    def chunk_px(self, level: int) -> tuple[int, int]:
        whole = self._facts.levels[level]
        return min(_CHUNK_PX, whole.height), min(_CHUNK_PX, whole.width)

    def close(self) -> None:
        with self._lock:
            self._pixels = None

    def _load(self) -> bytes:
        size_bytes = self._path.stat().st_size
        if size_bytes > MAX_ENCODED_BYTES:
            raise SourceError(
                f"a {self._kind} file of {size_bytes} bytes is over {MAX_ENCODED_BYTES}; convert to a tiled TIFF"
            )
        return self._path.read_bytes()

    def _describe(self, data: bytes) -> ImageFacts:
        frame = _FRAMES[self._kind](data)
        if frame.height < 1 or frame.width < 1:
            raise SourceError(f"image of {frame.height} x {frame.width} px is empty")
        working = frame.decoded_bytes * (4 if frame.progressive or self._kind == "jpeg2000" else 1)
        if working > MAX_DECODED_BYTES:
            raise SourceError(
                f"{frame.height} x {frame.width} px take {working} bytes to decode whole, more than "
                f"{MAX_DECODED_BYTES}; convert to a tiled TIFF"
            )
        if self._kind == "jpeg":
            if frame.components not in {1, 3}:
                raise SourceError(f"JPEG of {frame.components} components is not grey or RGB; convert it to RGB")
            codestream.check_jpeg_end(data)
            codestream.check_jpeg_scans(data)
        first = self._decoded(data) if self._kind != "jpeg" else None
        self._pixels = first
        bands = frame.components if first is None else first.shape[2]
        dtype = first.dtype if first is not None else np.dtype(np.uint8 if frame.bits <= 8 else np.uint16)
        names = ("gray",) if bands == 1 else ("red", "green", "blue") if bands == 3 else _numbers(bands)
        photometric = "min-is-black" if bands == 1 else "rgb"
        return ImageFacts(self._kind, names, dtype, make_levels([(frame.height, frame.width)], None), photometric)

    def _decoded(self, data: bytes) -> Pixels:
        with source_errors(str(self._path)):
            pixels: Pixels = _decode(self._kind, data)
            if pixels.ndim == 2:
                pixels = pixels[..., np.newaxis]
            if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= MAX_BANDS or pixels.dtype.kind not in "ui":
                raise SourceError(f"decodes to {pixels.dtype} of shape {pixels.shape}, which is no image")
            if self._kind in {"png", "webp"} and pixels.shape[2] in {2, 4}:
                pixels = np.ascontiguousarray(pixels[..., : pixels.shape[2] - 1])
            return pixels


def _decode(kind: str, data: bytes) -> Pixels:
    if kind == "png":
        return imagecodecs.png_decode(data)
    if kind == "jpeg":
        return imagecodecs.jpeg_decode(data)
    if kind == "jpeg2000":
        return imagecodecs.jpeg2k_decode(data)
    return imagecodecs.webp_decode(data)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(i + 1) for i in range(count))
