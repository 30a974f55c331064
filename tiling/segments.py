"""Append-only JSON lines in numbered segments, each written whole or not at all, with one writer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tiling.errors import ChangedError, RunError
from tiling.objects import ObjectPath
from tiling.storage import Place, write_atomic

READS_AT_ONCE = 16
_SEGMENT_NAME = re.compile(r"[0-9]+\.jsonl")


class Segments:
    """The segments in a folder, or below a name in an object store.

    Args:
        folder: where the segments lie.
        flush_seconds: after how long further lines make a segment of their own.
    """

    def __init__(self, folder: Place, flush_seconds: float) -> None:
        self._folder = folder
        self._flush_seconds = flush_seconds
        self._last_number: int | None = None
        self._lines: list[str] = []
        self._flushed_at = 0.0

    def append(self, line: str) -> None:
        """Add a line; it is stored after at most `flush_seconds` of further appends, or after `flush`."""
        self.keep(line)
        if time.monotonic() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def keep(self, line: str) -> None:
        """Add a line for the next `flush`."""
        self._lines.append(line)

    def flush(self) -> None:
        """Store what was added.

        Raises:
            RunError: another driver writes the same segments.
        """
        if not self._lines:
            return
        self._write(("\n".join(self._lines) + "\n").encode())
        self._lines.clear()
        self._flushed_at = time.monotonic()

    def lines(self) -> Iterator[tuple[Place, bytes]]:
        """Every stored line in the order of writing, with its segment; not decoded, for a disk may have changed it."""
        segments = self.stored()
        if isinstance(self._folder, ObjectPath):
            with ThreadPoolExecutor(READS_AT_ONCE) as threads:
                for path, data in zip(segments, threads.map(lambda each: each.read_bytes(), segments), strict=True):
                    for line in data.splitlines():
                        yield path, line
            return
        for path in segments:
            assert isinstance(path, Path)
            with path.open("rb") as file:
                for line in file:
                    yield path, line

    def stored(self) -> list[Place]:
        """The segments in order."""
        if isinstance(self._folder, ObjectPath):
            names = [path.name for path in self._folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name)]
            return [self._folder / name for name in sorted(names)]
        return [*sorted(self._folder.glob("[0-9]*.jsonl"))]

    def newest_number(self) -> int:
        segments = self.stored()
        return int(segments[-1].stem) if segments else 0

    def _write(self, data: bytes) -> None:
        """Write the next segment. In an object store it must be new: that stops a driver whose lease was taken over."""
        if not isinstance(self._folder, ObjectPath):
            write_atomic(self._folder / f"{self.newest_number() + 1:08d}.jsonl", data)
            return
        number = (self.newest_number() if self._last_number is None else self._last_number) + 1
        segment = self._folder / f"{number:08d}.jsonl"
        try:
            segment.put(data, only_new=True)
        except ChangedError as error:
            # The answer to a put may be lost and the put repeated: then the segment is ours.
            if segment.read_bytes() != data:
                raise RunError(
                    f"ledger segment {segment} was written by another driver, which has taken the run over; this one "
                    f"stops, its tiles since then are computed again"
                ) from error
        self._last_number = number
