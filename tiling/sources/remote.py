"""An image in an object store or on the web, read by ranges and never whole."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, cast

from tiling.errors import AccessError, ChangedError, SourceError, TilingError
from tiling.storage.object_path import ObjectPath

BLOCK_BYTES = 64 * 1024
BLOCKS_HELD = 64
GAP_BYTES = 64 * 1024  # of unwanted bytes that cost less than another request
SPAN_BYTES = 8 * 1024**2
FETCHED_BYTES = 32 * 1024**2
REQUESTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Wanted ranges (offset, count) near each other, read with one request."""

    start: int
    stop: int
    ranges: tuple[tuple[int, int], ...]


class RemoteFile:
    """One object's bytes. Safe to use from several threads at once.

    Small reads come from blocks, of which the last few are held; large ones are requests of their own. Every request
    names the object's tag, so that pixels of two images are never mixed.

    Raises:
        SourceError: there is no such object, it may not be read, or it was changed after it was opened.
        StorageError: the store failed, also after retries.
    """

    is_slow = True
    memory_bytes = BLOCK_BYTES * BLOCKS_HELD + FETCHED_BYTES + SPAN_BYTES * REQUESTS_AT_ONCE

    def __init__(self, place: ObjectPath) -> None:
        self._place = place
        try:
            facts = place.facts()
        except FileNotFoundError as error:
            raise SourceError(f"{error}; check the URL") from None
        except AccessError as error:
            raise SourceError(str(error)) from None
        self.size_bytes = facts.size_bytes
        strong = facts.tag.e_tag is not None and not facts.tag.e_tag.startswith("W/")
        self._e_tag = facts.tag.e_tag if strong else None  # RFC 9110: weak tags match no condition
        self.identity = f"{facts.size_bytes} {facts.tag.e_tag or facts.modified.isoformat()}"
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._fetched: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._fetched_bytes = 0
        self._lock = threading.Lock()
        self._failure: TilingError | None = None

    def read(self, count: int, offset: int) -> bytes:
        with self._lock:
            ready = self._fetched.pop((offset, count), None)
            if ready is not None:
                self._fetched_bytes -= len(ready)
                return ready
        count = max(0, min(count, self.size_bytes - offset))
        if count == 0:
            return b""
        if count > BLOCK_BYTES:
            return self._request(offset, offset + count)
        first, last = offset // BLOCK_BYTES, (offset + count - 1) // BLOCK_BYTES
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[offset - first * BLOCK_BYTES :][:count]

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        spans = list(byte_ranges_of(ranges, self.size_bytes))
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
            answers = threads.map(lambda each: self._request(each.start, each.stop), spans)
            for span, data in zip(spans, answers, strict=True):
                self._keep(span, data)

    def stream(self) -> BinaryIO:
        return cast("BinaryIO", _Stream(self, self._place.name))

    def expect_unbroken(self) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        with self._lock:
            self._blocks.clear()
            self._fetched.clear()
            self._fetched_bytes = 0

    def _keep(self, span: ByteRange, data: bytes) -> None:
        with self._lock:
            for offset, count in span.ranges:
                previous = self._fetched.pop((offset, count), b"")
                piece = self._fetched[offset, count] = data[offset - span.start :][:count]
                self._fetched_bytes += len(piece) - len(previous)
            while self._fetched_bytes > FETCHED_BYTES:
                self._fetched_bytes -= len(self._fetched.popitem(last=False)[1])

    def _block(self, number: int) -> bytes:
        with self._lock:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
                return block
        start = number * BLOCK_BYTES
        block = self._request(start, min(start + BLOCK_BYTES, self.size_bytes))
        with self._lock:
            self._blocks[number] = block
            while len(self._blocks) > BLOCKS_HELD:
                self._blocks.popitem(last=False)
        return block

    def _request(self, start: int, stop: int) -> bytes:
        try:
            return self._ask(start, stop)
        except TilingError as error:
            self._failure = error
            raise

    def _ask(self, start: int, stop: int) -> bytes:
        try:
            data = self._place.read_range(start, stop - start, self._e_tag)
        except (ChangedError, FileNotFoundError):
            raise SourceError(f"{self._place}: the image was changed or removed after it was opened") from None
        except AccessError as error:
            raise SourceError(str(error)) from None
        if len(data) != stop - start:
            raise SourceError(f"{self._place}: bytes {start} to {stop} were asked for, {len(data)} came")
        return data


def byte_ranges_of(ranges: Sequence[tuple[int, int]], size_bytes: int) -> Iterator[ByteRange]:
    """Join ranges (offset, count) that lie close to each other, up to a limit; what the limits exclude is left out."""
    budget = FETCHED_BYTES
    held: list[tuple[int, int]] = []
    for offset, count in sorted(set(ranges)):
        if count < 1 or count > SPAN_BYTES or offset + count > size_bytes or count > budget:
            continue
        budget -= count
        if held and (offset - _stop(held) > GAP_BYTES or max(_stop(held), offset + count) - held[0][0] > SPAN_BYTES):
            yield ByteRange(held[0][0], _stop(held), tuple(held))
            held = []
        held.append((offset, count))
    if held:
        yield ByteRange(held[0][0], _stop(held), tuple(held))


def _stop(ranges: Sequence[tuple[int, int]]) -> int:
    return max(offset + count for offset, count in ranges)


class _Stream(io.RawIOBase):
    """The file as parsers want it."""

    def __init__(self, file: RemoteFile, name: str) -> None:
        super().__init__()
        self._file = file
        self._at = 0
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size_bytes}[whence]
        if start + offset < 0:
            raise OSError(f"position {start + offset} lies before the file's start")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self._file.read(len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
