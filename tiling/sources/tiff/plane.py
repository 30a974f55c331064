"""The pixels of one TIFF directory: which segments lie under a box, and how they are read.

A segment is a strip or a tile. Uncompressed segments are read by rows, all others are decoded whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tifffile import TiffPage

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.cache import SegmentCache
from tiling.sources.file import ImageFile
from tiling.sources.limits import (
    LIBRARY_ERRORS,
    MAX_DECODED_BYTES,
    MAX_ENCODED_BYTES,
    MAX_SEGMENTS,
    one_line,
    reason,
)
from tiling.sources.tiff.compression import check_stream, expect_supported
from tiling.sources.tiff.directory import Directory
from tiling.sources.tiff.samples import JPEG_CODES, Interpretation
from tiling.sources.tiff.segments import Grid, depth_of, grid_of

Pixels = npt.NDArray[np.generic]

_OLD_JPEG = 6
_BEYOND_ANY_FILE = 2**53
_ROWS_AT_ONCE_BYTES = 1024**2
_SLACK_BYTES = 16 * 1024**2  # headers, tables and colour profiles that a compressed segment may carry


class Plane:
    """Random access to one directory's pixels. Safe to use from several threads."""

    def __init__(self, page: TiffPage, directory: Directory, interpretation: Interpretation) -> None:
        layout = directory.layout
        self._file = layout.file
        self._file_bytes = layout.file_bytes
        self.interpretation = interpretation
        self._planar = int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1
        self._stored_samples = 1 if self._planar else int(page.samplesperpixel)
        self._compression = int(page.compression)
        self._jpeg_tables: bytes | None = page.jpegtables
        self._stored = np.dtype(page.dtype).newbyteorder(layout.order)
        self._fill = page.nodata
        self.grid = grid_of(page)
        self._depth = depth_of(page)
        self._offsets, self._counts = self._segment_table(page)
        self._raw = _is_raw(page)
        if self._raw:
            self._join_strips(page)
        self._check_segments()
        self.gaps = self._unwritten()
        page.init_decode()
        self._decode: Callable[..., Any] = page.decode
        if self._compression == _OLD_JPEG:
            self._expect_old_jpeg()

    def _expect_old_jpeg(self) -> None:
        """Refuse old-style JPEG whose pieces lie apart in the file, which only a look at one of them can tell."""
        first = int(np.argmax(self._counts > 0))
        try:
            self._decoded(first)
        except (SourceError, *LIBRARY_ERRORS) as error:
            raise SourceError(
                f"it is compressed as old-style JPEG (compression 6), and its pieces can't be put together "
                f"({one_line(error)}); convert it with tiffcp -c jpeg or gdal_translate -co COMPRESS=JPEG"
            ) from error

    @property
    def band_count(self) -> int:
        return len(self.interpretation.bands)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.grid.height, self.grid.width

    @property
    def segment_count(self) -> int:
        return len(self._offsets)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of one whole decoded segment."""
        return self._segment_pixels * self._stored_samples * self._stored.itemsize

    @property
    def _segment_pixels(self) -> int:
        return self.grid.segment_height * self.grid.segment_width

    @property
    def reads_rows(self) -> bool:
        """True if a part of a segment is read without the rest."""
        return self._raw

    def leave_out(self, segment: int) -> None:
        """Read a segment from now on as if it had never been written."""
        if segment < len(self._counts):
            self._counts[segment] = 0
            self.gaps = self._unwritten()

    def segment_places(self) -> list[tuple[int, Box]]:
        """Number and place of every segment that is decoded as a whole, and that was written."""
        if self._raw:
            return []
        samples = self.interpretation.kept if self._planar else (0,)
        per_plane, whole = self.grid.rows * self.grid.cols * self._depth, Box(0, 0, *self.size_px)
        found = [(sample * per_plane + index, place) for sample in samples for index, place in self.grid.under(whole)]
        return [(segment, place) for segment, place in found if self._counts[segment] > 0]

    def fault_of(self, segment: int, place: Box) -> str | None:
        """Reason why a segment doesn't decode, on one line; None where it does."""
        try:
            shape = self._bands(self._decoded(segment)).shape
        except (SourceError, *LIBRARY_ERRORS) as error:
            return reason(error)
        if shape[0] < place.height or shape[1] < place.width:
            return f"it decodes to {shape[0]} x {shape[1]} px only"
        return None

    def read_into(self, out: Pixels, box: Box, cache: SegmentCache, key: int) -> None:
        """Fill `out` `(y, x, band)` with the box. `key` tells this plane from others in the cache."""
        samples = self.interpretation.kept if self._planar else (0,)
        per_plane = self.grid.rows * self.grid.cols * self._depth
        if self._file.is_slow:
            self._fetch(box, [sample * per_plane for sample in samples], cache, key)
        for number, sample in enumerate(samples):
            target = out[..., number : number + 1] if self._planar and len(samples) > 1 else out
            self._read_plane(target, box, sample * per_plane, cache, key)

    def evict(self, box: Box, cache: SegmentCache, key: int) -> None:
        """Drop the segments from the cache that touch a box and end inside of it, at its lower and its right side."""
        if self._raw:
            return
        tall, wide, (height, width) = self.grid.segment_height, self.grid.segment_width, self.size_px
        samples = self.interpretation.kept if self._planar else (0,)
        rows = range(box.y0 // tall, self.grid.rows if box.y1 == height else box.y1 // tall)
        cols = range(box.x0 // wide, self.grid.cols if box.x1 == width else box.x1 // wide)
        cache.evict(
            (key, (sample * self._depth * self.grid.rows + row) * self.grid.cols + col)
            for sample in samples
            for row in rows
            for col in cols
        )

    def _read_plane(self, out: Pixels, box: Box, first: int, cache: SegmentCache, key: int) -> None:
        """The same of samples that lie side by side, whose first segment has that number.

        Whole numbers instead of boxes: most segments are in the cache, from which a copy takes a few microseconds.
        """
        tall, wide, cols = self.grid.segment_height, self.grid.segment_width, self.grid.cols
        for row in range(box.y0 // tall, -(-box.y1 // tall)):
            top = row * tall
            y0, y1 = max(box.y0 - top, 0), min(box.y1 - top, tall)
            rows = slice(top + y0 - box.y0, top + y1 - box.y0)
            for col in range(box.x0 // wide, -(-box.x1 // wide)):
                left, segment = col * wide, first + row * cols + col
                x0, x1 = max(box.x0 - left, 0), min(box.x1 - left, wide)
                held = cache.find((key, segment))
                if held is not None and held.shape[0] >= y1 and held.shape[1] >= x1:
                    pixels = held[y0:y1, x0:x1]
                else:
                    try:
                        pixels = self._part(segment, row, Box(y0, x0, y1, x1), cache, key)
                    except (SourceError, *LIBRARY_ERRORS) as error:
                        place = self.grid.place(row, col)
                        raise SourceError(f"segment {segment} {place}: {reason(error)}") from error
                out[rows, left + x0 - box.x0 : left + x1 - box.x0] = pixels

    def _fetch(self, box: Box, firsts: Sequence[int], cache: SegmentCache, key: int) -> None:
        """Get what lies under the box ready side by side; `firsts` are the sample planes' first segments."""
        wanted: list[tuple[int, int]] = []
        for first in firsts:
            for index, place in self.grid.under(box):
                segment = first + index
                if self._raw:
                    inside = place.intersect(box).translate(-place.y0, -place.x0)
                    wanted += self._row_ranges(int(self._offsets[segment]), inside)
                elif not cache.holds((key, segment)):
                    wanted.append((int(self._offsets[segment]), int(self._counts[segment])))
        self._file.fetch(wanted)

    def _part(self, segment: int, row: int, inside: Box, cache: SegmentCache, key: int) -> Pixels:
        """Part of a segment of a row of the grid."""
        if self._counts[segment] == 0:
            # A segment that was never written (GDAL calls such files sparse) holds the no-data value.
            sparse = np.full((1, 1, self._stored_samples), self._fill, self._stored.newbyteorder("="))
            return self._bands(sparse)
        if self._raw and self._counts[segment] >= self._raw_bytes(row):
            return self._bands(self._read_rows(int(self._offsets[segment]), inside))
        whole = cache.get((key, segment), self.decoded_bytes, lambda: self._bands(self._decoded(segment)))
        if whole.shape[0] < inside.y1 or whole.shape[1] < inside.x1:
            raise SourceError(f"it decodes to {whole.shape[0]} x {whole.shape[1]} px only")
        return whole[inside.slices]

    def _bands(self, stored: Pixels) -> Pixels:
        """Stored samples to bands: alpha dropped, colours converted."""
        kept = self.interpretation.kept
        if not self._planar and kept != tuple(range(self._stored_samples)):
            prefix = kept == tuple(range(len(kept)))
            stored = stored[..., : len(kept)] if prefix else stored[..., list(kept)]
        convert = self.interpretation.convert
        return stored if convert is None else convert(stored)

    def _decoded(self, segment: int) -> Pixels:
        """Decode one whole segment to `(y, x, sample)`."""
        count = int(self._counts[segment])
        limit = min(MAX_ENCODED_BYTES, 2 * self.decoded_bytes + _SLACK_BYTES)
        if count > limit:
            raise SourceError(f"it claims {count} compressed bytes; at most {limit} can be of use")
        data = self._file.read(count, int(self._offsets[segment]))
        if len(data) < count:
            raise SourceError(f"it is cut off by the end of the file after {len(data)} of {count} bytes")
        segment_px = self.grid.segment_height, self.grid.segment_width
        check_stream(data, self._compression, segment_px, self._stored_samples)
        if self._compression in JPEG_CODES:
            decoded = self._decode(data, segment, jpegtables=self._jpeg_tables)[0]
        else:
            decoded = self._decode(data, segment)[0]
        return decoded[0]

    def _raw_bytes(self, row: int) -> int:
        """Bytes that an uncompressed segment of a row of the grid must have for the rows that lie inside the image."""
        tall = min(self.grid.segment_height, self.grid.height - row * self.grid.segment_height)
        return tall * self.grid.segment_width * self._stored_samples * self._stored.itemsize

    def _read_rows(self, offset: int, inside: Box) -> Pixels:
        """Read a part of an uncompressed segment, and little more than it."""
        shape = (inside.height, inside.width, self._stored_samples)
        ranges = self._row_ranges(offset, inside)
        if len(ranges) == 1:
            data = _read_whole(self._file, ranges[0][1], ranges[0][0])
            rows = np.frombuffer(data, self._stored)
            if len(rows) == shape[0] * shape[1] * shape[2]:
                return rows.reshape(shape)
            return rows.reshape(shape[0], self.grid.segment_width, shape[2])[:, inside.x0 : inside.x1]
        out = np.empty(shape, self._stored)
        for row, (start, count) in enumerate(ranges):
            out[row] = np.frombuffer(_read_whole(self._file, count, start), self._stored).reshape(shape[1:])
        return out

    def _row_ranges(self, offset: int, inside: Box) -> list[tuple[int, int]]:
        """Ranges of a part of an uncompressed segment, as (offset, count): its rows in one piece, or row by row."""
        pixel_bytes = self._stored_samples * self._stored.itemsize
        row_bytes = self.grid.segment_width * pixel_bytes
        if inside.width * 2 >= self.grid.segment_width or inside.height * row_bytes <= _ROWS_AT_ONCE_BYTES:
            return [(offset + inside.y0 * row_bytes, inside.height * row_bytes)]
        start = offset + inside.y0 * row_bytes + inside.x0 * pixel_bytes
        return [(start + row * row_bytes, inside.width * pixel_bytes) for row in range(inside.height)]

    def _segment_table(self, page: TiffPage) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        samples = int(page.samplesperpixel) if self._planar else 1
        expected = self.grid.rows * self.grid.cols * self._depth * samples
        if expected > MAX_SEGMENTS:
            raise SourceError(f"{expected} strips or tiles; at most {MAX_SEGMENTS} are allowed: use larger tiles")
        if min(len(page.dataoffsets), len(page.databytecounts)) < expected:
            raise SourceError(
                f"only {min(len(page.dataoffsets), len(page.databytecounts))} of {expected} strips or tiles "
                "are listed: the file is damaged"
            )
        # What lies beyond any file is cut to a number that does too, and that sums do not overflow.
        tables = (np.array(table[:expected], np.float64) for table in (page.dataoffsets, page.databytecounts))
        offsets, counts = (np.clip(table, 0, _BEYOND_ANY_FILE).astype(np.int64) for table in tables)
        return offsets, counts

    def _unwritten(self) -> npt.NDArray[np.bool_] | None:
        """Segments `(row, column)` that were never written for any band; None where all were."""
        cells, per_plane = self.grid.rows * self.grid.cols, self.grid.rows * self.grid.cols * self._depth
        samples = self.interpretation.kept if self._planar else (0,)
        empty = np.zeros(cells, np.bool_)
        for sample in samples:
            empty |= self._counts[sample * per_plane :][:cells] == 0
        return empty.reshape(self.grid.rows, self.grid.cols) if empty.any() else None

    def _join_strips(self, page: TiffPage) -> None:
        """Treat strips that follow each other without gaps as one: fewer and larger reads."""
        if page.is_tiled or self._depth > 1 or self.grid.cols != 1 or self.grid.rows == 1:
            return
        planes = self._offsets.reshape(-1, self.grid.rows)
        strip_bytes = self._segment_pixels * self._stored_samples * self._stored.itemsize
        whole = self.grid.height * self.grid.width * self._stored_samples * self._stored.itemsize
        if (np.diff(planes, axis=1) == strip_bytes).all() and (self._counts > 0).all():
            last = self._counts.reshape(-1, self.grid.rows)[:, -1]
            if (last >= whole - strip_bytes * (self.grid.rows - 1)).all():
                self._offsets = np.ascontiguousarray(planes[:, 0])
                self._counts = np.full(len(planes), whole, np.int64)
                self.grid = Grid(self.grid.height, self.grid.width, self.grid.height, self.grid.width)

    def _check_segments(self) -> None:
        expect_supported(self._compression)
        if not self._raw and self.decoded_bytes > MAX_DECODED_BYTES:
            raise SourceError(
                f"one strip or tile holds {self.decoded_bytes} bytes and must be decoded whole, more than "
                f"{MAX_DECODED_BYTES}; convert to a tiled TIFF (for example with 512 px tiles)"
            )
        self._check_complete()

    def _check_complete(self) -> None:
        """Refuse a truncated file. A single segment out of place fails when it is read, and alone."""
        total = len(self._offsets)
        beyond = int(((self._offsets > 0) & (self._offsets + self._needed_bytes() > self._file_bytes)).sum())
        if beyond == total or beyond > max(1, total // 100):
            raise SourceError(
                f"{beyond} of {total} strips or tiles lie beyond the end of the file ({self._file_bytes} bytes): "
                "the file is truncated; copy it again"
            )

    def _needed_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of each segment that must be in the file: uncompressed ones may lack rows below the image."""
        if not self._raw:
            return self._counts
        tops = np.arange(len(self._offsets)) // self.grid.cols % self.grid.rows * self.grid.segment_height
        heights = np.minimum(self.grid.segment_height, self.grid.height - tops)
        row_bytes = self.grid.segment_width * self._stored_samples * self._stored.itemsize
        return np.minimum(self._counts, heights * row_bytes)


def _read_whole(file: ImageFile, count: int, offset: int) -> bytes:
    data = file.read(count, offset)
    if len(data) < count:
        raise SourceError(f"the file ends {count - len(data)} bytes too early")
    return data


def _is_raw(page: TiffPage) -> bool:
    return (
        int(page.compression) == 1
        and int(page.predictor) == 1
        and int(page.fillorder) == 1
        and page.bitspersample in (8, 16, 32, 64)
        and int(page.sampleformat) != 5
    )
