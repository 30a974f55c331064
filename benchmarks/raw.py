"""Raw cost of the libraries under each step: the same pixels and bytes, in the same chunks, by one thread.

Nothing is planned, checked or recorded; what a step takes beyond this is its own. JPEG by imagecodecs as tifffile calls
it, zstd by numcodecs, digests by hashlib. Pillow's `reduce`, a compiled mean of squares, stands for
coarse views, and for the majority of four labels, which no library has: its work per pixel is about the same.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import google_crc32c
import numpy as np
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from tifffile import TiffFile, TiffPage

from tiling.geometry import Box
from tiling.objects.image import open_objects
from tiling.runs.mask import Mask
from tiling.runs.staging import mirrored
from tiling.sources.tiff.segments import Grid, grid_of

if TYPE_CHECKING:
    from tiling.plan import Tile
    from tiling.runs.pyramid import Pyramid
    from tiling.runs.run import Run
    from tiling.source import ImageSource

Pixels = NDArray[Any]

READ_BYTES = 4 * 2**20
MASK_ZSTD, OBJECTS_ZSTD = 3, 1
BAND_PX = 1024


class WatchedSource:
    """An image that notes which boxes of which levels are read of it."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.boxes: list[tuple[int, Box]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, level: int, box: Box) -> Pixels:
        self.boxes.append((level, box))
        return self._source.read(level, box)


class Timer:
    """Processor seconds of this thread, by step and part of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def part(self, step: str, part: str) -> Generator[None]:
        began = time.thread_time()
        yield
        parts = self.seconds.setdefault(step, {})
        parts[part] = parts.get(part, 0.0) + time.thread_time() - began


class RawCosts:
    """Processor seconds of the libraries, by step and part of it.

    Args:
        image: a TIFF of one page per level, whose segments are encoded.
        scratch: a folder for files that are written.
    """

    def __init__(self, image: Path, scratch: Path) -> None:
        timer = Timer()
        self._part, self.seconds = timer.part, timer.seconds
        self._image, self._file = image, scratch / "raw"
        self._tiff = TiffFile(image)
        self._pages = [cast("TiffPage", page) for page in self._tiff.pages]
        self._grids: list[Grid] = [grid_of(page) for page in self._pages]
        self._held: dict[int, tuple[Box, Pixels]] = {}
        self._seen: set[int] = set()

    def close(self) -> None:
        self._file.unlink(missing_ok=True)
        self._tiff.close()

    def fingerprint(self) -> None:
        with self._part("fingerprint", "sha256"), self._image.open("rb", buffering=0) as file:
            digest = hashlib.sha256()
            while piece := file.read(READ_BYTES):
                digest.update(piece)

    def view(self, step: str, watched: WatchedSource, factor: int) -> None:
        """Decode every segment that a step has read once; of the level read first, means of squares.

        `factor` pixels of the finest level are one of the view.
        """
        start = watched.boxes[0][0]
        inner, seen = factor // round(watched.levels[start].downsample), set[tuple[int, int]]()
        for level, box in watched.boxes:
            for index, _ in self._grids[level].under(box):
                if (level, index) in seen:
                    continue
                seen.add((level, index))
                pixels = self._decoded(step, level, index)
                if level == start and inner > 1:
                    with self._part(step, "means"):
                        Image.fromarray(pixels).reduce(inner)

    def load(self, step: str, tile: Tile, extent: tuple[int, int], read_HWC: Pixels) -> Pixels:
        """Decode and gather a tile; each segment is decoded once in all.

        Raises:
            AssertionError: these are other pixels than those that were read.
        """
        read = tile.read
        rows, cols = mirrored(read.y0, read.y1, extent[0]), mirrored(read.x0, read.x1, extent[1])
        seen = Box(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
        self._held = {index: held for index, held in self._held.items() if held[0].y1 > seen.y0}
        under = [*self._grids[0].under(seen)]
        for index, place in under:
            if index not in self._held:
                self._held[index] = place, self._decoded(step, 0, index, again=index in self._seen)
                self._seen.add(index)
        with self._part(step, "gather"):
            pixels = np.empty((*seen.shape, read_HWC.shape[-1]), read_HWC.dtype)
            for index, place in under:
                part = place.intersect(seen)
                pixels[part.relative_to(seen).slices] = self._held[index][1][part.relative_to(place).slices]
            if seen != read:
                pixels = pixels[np.ix_(rows - seen.y0, cols - seen.x0)]
        assert np.array_equal(pixels, read_HWC), f"tile {tile.name}: other pixels than those that were read"
        return pixels

    def stage(self, pixels: Pixels) -> None:
        """Check and write a tile, and read it again."""
        with self._part("stage", "crc32c"):
            google_crc32c.value(cast("Any", pixels))
        with self._part("stage", "file"):
            self._file.write_bytes(pixels.data)
        with self._part("read", "file"):
            stored = np.fromfile(self._file, np.uint8)
        with self._part("read", "crc32c"):
            google_crc32c.value(cast("Any", stored))

    def write(self, labels: NDArray[np.uint8], pyramid: Pyramid) -> None:
        """Digest, counts and chunks of a tile's labels, and of the reduced levels that it fills by itself."""
        with self._part("write", "blake2b"):
            hashlib.blake2b(np.ascontiguousarray(labels).data, digest_size=16).hexdigest()
        with self._part("write", "counts"):
            np.count_nonzero(labels)
        chunk = pyramid.levels[0].chunks
        chunks = self._compressed("write", labels, chunk)
        with self._part("write", "file"):
            self._file.write_bytes(b"".join(chunks))
        for _ in range(pyramid.whole_levels):
            with self._part("write", "majority"):
                Image.fromarray(labels).reduce(2)
            labels = Mask.halve(labels)
            self._compressed("write", labels, chunk)

    def pyramid(self, pyramid: Pyramid) -> None:
        """The levels that no tile fills by itself, each of the one below."""
        for level in range(pyramid.whole_levels + 1, len(pyramid.levels)):
            chunk = pyramid.levels[level].chunks
            for box in pyramid.shards(level):
                finer = pyramid.read(pyramid.below(level, box), level - 1)
                stored = [compress(each, MASK_ZSTD, True) for each in _chunks(finer, chunk)]
                with self._part("pyramid", "zstd"):
                    for each in stored:
                        decompress(each)
                with self._part("pyramid", "majority"):
                    Image.fromarray(finer).reduce(2)
                chunks = self._compressed("pyramid", pyramid.read(box, level), chunk)
                with self._part("pyramid", "file"):
                    self._file.write_bytes(b"".join(chunks))

    def pictures(self, overlay: Path) -> None:
        """The overlay as PNG, and the report's of it as JPEG."""
        with Image.open(overlay) as file:
            picture = file.convert("RGB")
        with self._part("pictures", "png"):
            picture.save(BytesIO(), format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
        with self._part("pictures", "report JPEG"):
            picture.save(BytesIO(), "JPEG", quality=82)

    def _decoded(self, step: str, level: int, index: int, *, again: bool = False) -> Pixels:
        """A segment; one that is decoded `again` costs nothing, since it needn't have been given up."""
        page = self._pages[level]
        self._tiff.filehandle.seek(page.dataoffsets[index])
        data = self._tiff.filehandle.read(page.databytecounts[index])
        with nullcontext() if again else self._part(step, "JPEG"):
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
        assert decoded is not None
        return cast("Pixels", decoded[0])

    def _compressed(self, step: str, pixels: Pixels, chunk: tuple[int, ...]) -> list[bytes]:
        with self._part(step, "zstd"):
            return [compress(each, MASK_ZSTD, True) for each in _chunks(pixels, chunk)]


def objects(run: Run) -> dict[str, float]:
    """Connected areas of a run's mask and their pixels by bands, and its numbers of all levels in their chunks."""
    numbered = open_objects(run)
    assert numbered is not None
    mask, numbers, timer = run.open_mask(read_only=True).pyramid, numbered.pyramid, Timer()
    for box in _bands(mask.levels[0].shape):
        labels = mask.read(box)
        stored = [compress(each, MASK_ZSTD, True) for each in _chunks(labels, mask.levels[0].chunks)]
        with timer.part("objects", "zstd"):
            for each in stored:
                decompress(each)
        with timer.part("objects", "label"):
            found = cast("tuple[Pixels, int]", ndimage.label(labels))[0]
        with timer.part("objects", "count"):
            np.bincount(found.ravel())
    for level, array in enumerate(numbers.levels):
        for box in _bands(array.shape):
            pixels = numbers.read(box, level)
            with timer.part("objects", "zstd"):
                for each in _chunks(pixels, array.chunks):
                    compress(each, OBJECTS_ZSTD, True)
    return timer.seconds["objects"]


def _bands(shape: tuple[int, ...]) -> Iterator[Box]:
    height, width = shape
    for y in range(0, height, BAND_PX):
        yield Box(y, 0, min(y + BAND_PX, height), width)


def _chunks(pixels: Pixels, chunk: tuple[int, ...]) -> Iterator[Pixels]:
    tall, wide = chunk
    for y in range(0, pixels.shape[0], tall):
        for x in range(0, pixels.shape[1], wide):
            yield np.ascontiguousarray(pixels[y : y + tall, x : x + wide])
