"""Images without access inside: PNG, JPEG, JPEG 2000 and WebP files are decoded once, whole, within a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from io import BytesIO

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources import codestream
from tiling.sources.facts import ImageFacts, make_levels
from tiling.sources.file import ImageFile
from tiling.sources.jpeg2000_place import jpeg2000_georeference
from tiling.sources.limits import MAX_DECODED_BYTES, MAX_ENCODED_BYTES, source_errors
from tiling.sources.orientation import exif_orientation
from tiling.sources.tiff.georeference import ground_pixel_size
from tiling.storage.place import Place

Pixels = npt.NDArray[np.generic]
Mask = npt.NDArray[np.bool_]

_CHUNK_PX = 1024
_PALETTE = 3  # the colour type of a PNG
_HEADER_BYTES = 64 * 1024  # where the palette of a JP2 file stands
_FRAMES: dict[str, Callable[[bytes], codestream.Frame]] = {
    "png": codestream.png_frame,
    "jpeg": codestream.jpeg_frame,
    "jpeg2000": codestream.jpeg2000_frame,
    "webp": codestream.webp_frame,
}


class RasterReader:
    """A file whose image is decoded whole on the first read. Safe to call from several threads at once.

    Transparency says where there is data, unless it is asked for as a band. The orientation that cameras write is
    reported and not applied: pixels stay as stored.
    """

    def __init__(self, place: Place, file: ImageFile, kind: str, *, alpha: bool = False) -> None:
        self._file = file
        self._kind = kind
        self._keeps_alpha = alpha
        self._lock = threading.Lock()
        self._pixels: tuple[Pixels, Mask | None] | None = None
        with source_errors(str(place)):
            self._facts = self._describe(self._load())

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the image."""
        return np.ascontiguousarray(self._whole()[0][box.slices])

    def read_mask(self, level: int, box: Box) -> Mask | None:
        """Mask of the pixels of a box that hold data: not wholly transparent; None where nothing is transparent."""
        shown = self._whole()[1] if self._facts.has_mask else None
        return None if shown is None else np.ascontiguousarray(shown[box.slices])

    def _whole(self) -> tuple[Pixels, Mask | None]:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decoded(self._load())
            return self._pixels

    def chunk_px(self, level: int) -> tuple[int, int]:
        whole = self._facts.levels[level]
        return min(_CHUNK_PX, whole.height), min(_CHUNK_PX, whole.width)

    def close(self) -> None:
        with self._lock:
            self._pixels = None
        self._file.close()

    def _load(self) -> bytes:
        size_bytes = self._file.size_bytes
        if size_bytes > MAX_ENCODED_BYTES:
            raise SourceError(
                f"a {self._kind} file of {size_bytes} bytes is over {MAX_ENCODED_BYTES}; convert to a tiled TIFF"
            )
        return self._file.read(size_bytes, 0)

    def _describe(self, data: bytes) -> ImageFacts:
        """Facts from the header alone, checked against the limits."""
        frame = _FRAMES[self._kind](data)
        if frame.height < 1 or frame.width < 1:
            raise SourceError(f"image of {frame.height} x {frame.width} px is empty")
        if frame.working_bytes > MAX_DECODED_BYTES:
            raise SourceError(
                f"{frame.height} x {frame.width} px take {frame.working_bytes} bytes to decode whole, more than "
                f"{MAX_DECODED_BYTES}; convert to a tiled TIFF"
            )
        if self._kind == "jpeg":
            codestream.check_jpeg_end(data)
            codestream.check_jpeg_scans(data)
        names, has_alpha = _bands(self._kind, frame, data)
        offered = ("alpha",) if has_alpha and self._kind == "png" else ()
        if self._keeps_alpha:
            names, offered = (*names, *offered), ()
        place = jpeg2000_georeference(self._file) if self._kind == "jpeg2000" else None
        size = None if place is None else ground_pixel_size(place)
        levels = make_levels([(frame.height, frame.width)], size)
        dtype = np.dtype(np.uint8 if frame.bits <= 8 else np.uint16)
        photometric = "min-is-black" if names[0] == "gray" else "rgb"
        return ImageFacts(
            self._kind,
            names,
            dtype,
            levels,
            photometric,
            georeference=place,
            has_alpha=has_alpha,
            alpha=offered,
            has_mask=(has_alpha and not self._keeps_alpha) or (self._kind == "png" and bool(_transparency(data))),
            memory_bytes=frame.working_bytes + len(data),
            orientation=exif_orientation(self._kind, data),
        )

    def _decoded(self, data: bytes) -> tuple[Pixels, Mask | None]:
        pixels = _decode(self._kind, data)
        if pixels.ndim == 2:
            pixels = pixels[..., np.newaxis]
        whole, bands, dtype = self._facts.levels[0], len(self._facts.bands), self._facts.dtype
        drops_alpha = self._kind in {"png", "webp"} and pixels.shape[2] == bands + 1
        if pixels.shape != (whole.height, whole.width, bands + drops_alpha) or pixels.dtype != dtype:
            raise SourceError(
                f"it decodes to {pixels.dtype} of shape {pixels.shape}, its header says {dtype} of "
                f"{(whole.height, whole.width, bands)}: the file is damaged"
            )
        shown = pixels[..., bands] != 0 if drops_alpha else _shown(pixels, data) if self._kind == "png" else None
        return np.ascontiguousarray(pixels[..., :bands]), shown


def _bands(kind: str, frame: codestream.Frame, data: bytes) -> tuple[tuple[str, ...], bool]:
    """Band names, and whether there is an alpha channel besides."""
    rgb, gray = ("red", "green", "blue"), ("gray",)
    if kind == "webp":
        return rgb, _webp_has_alpha(data)
    if kind == "png":
        color = data[25]
        return (gray if color in {0, 4} else rgb), color in {4, 6}
    if kind == "jpeg2000" and frame.components == 1 and b"pclr" in data[:_HEADER_BYTES]:
        raise SourceError("JPEG 2000 image with a palette; convert it to RGB")
    if frame.components in {1, 3}:
        return (gray if frame.components == 1 else rgb), False
    raise SourceError(f"{kind} image of {frame.components} components is neither grey nor RGB; convert it to RGB")


def _transparency(data: bytes) -> bytes:
    """A PNG's `tRNS`: a colour that is transparent, or how transparent each of a palette's is; empty where absent."""
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"tRNS":
            return data[at + 8 : at + 8 + length] if data[25] in {0, 2, 3} else b""
        at += 12 + length
    return b""


def _shown(pixels: Pixels, data: bytes) -> Mask | None:
    """Mask of the pixels of a PNG without alpha channel that aren't wholly transparent; None where all are shown."""
    key, bits = _transparency(data), data[24]
    if not key:
        return None
    if data[25] == _PALETTE:
        try:
            with Image.open(BytesIO(data)) as picture:
                return np.asarray(picture.convert("RGBA"))[..., 3] != 0
        except (Image.DecompressionBombError, OSError, ValueError) as error:
            raise SourceError(f"the transparency of its palette can't be read ({error}); convert it to RGBA") from error
    samples = np.frombuffer(key[: 2 * pixels.shape[2]], ">u2").astype(np.uint32)
    if samples.size != pixels.shape[2]:
        return None  # as PNG has it, a chunk of another length is ignored
    spread = 255 // ((1 << bits) - 1) if bits < 8 else 1
    return (pixels != samples * np.uint32(spread)).any(axis=-1)


def _webp_has_alpha(data: bytes) -> bool:
    """By the header of an extended or a lossless file (RFC 9649, 2.7 and 3.4); plain lossy ones have none."""
    if data[12:16] == b"VP8X":
        return bool(data[20] & 0x10)
    return data[12:16] == b"VP8L" and bool(data[24] & 0x10)


def _decode(kind: str, data: bytes) -> Pixels:
    if kind == "png":
        return imagecodecs.png_decode(data)
    if kind == "jpeg":
        return imagecodecs.jpeg_decode(data)
    if kind == "jpeg2000":
        return imagecodecs.jpeg2k_decode(data)
    return imagecodecs.webp_decode(data)
