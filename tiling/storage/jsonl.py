"""Append-only JSON lines in numbered segments, each written whole or not at all, with one writer.

Each line is an object whose last name is `crc`, the CRC-32 of the line without it: a flipped bit in a digit or a name
is valid JSON as often as not, and would say something else. Lines of earlier versions have none.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import stat
import time
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from tiling.errors import ChangedError, RunError
from tiling.storage.disk import disk_errors, is_partial, write_whole
from tiling.storage.generator_threads import GeneratorThreads
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place
from tiling.storage.run_lock import expect_held

logger = logging.getLogger(__name__)

LONGEST_LINE_BYTES = 16 * 2**20
"""No driver writes so much about one tile, one slide or one event."""
READS_AT_ONCE = 16
NOT_A_RECORD = (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError)
"""What reading a line raises that holds no record, or numbers beyond any that is written."""
_SEGMENT_NAME = re.compile(r"[0-9]{8,}\.jsonl")
_CRC = b',"crc":"'


class Segments:
    """The segments in a folder, or below a name in an object store.

    Args:
        folder: holds the segments.
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
        """Add a line for the next `flush`: an object that is not empty."""
        self._lines.append(_with_crc(line))

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
        """Every stored line in the order of writing, with its segment; not decoded, for a disk may have changed it.

        Raises:
            RunError: a line that isn't what was written, or that no driver writes, for its length; what has a segment's
                name and is no file.
        """
        for path, line in self._stored_lines():
            yield path, _without_crc(path, line)

    def _stored_lines(self) -> Iterator[tuple[Place, bytes]]:
        segments = self.stored()
        if isinstance(self._folder, ObjectPath):
            with GeneratorThreads(READS_AT_ONCE) as threads:
                for path, data in zip(segments, threads.map(lambda each: each.read_bytes(), segments), strict=True):
                    for line in data.splitlines():
                        yield path, line
            return
        for path in _unrepeated([path for path in segments if isinstance(path, Path)]):
            with _opened(path) as file:
                while line := file.readline(LONGEST_LINE_BYTES + 1):
                    if len(line) > LONGEST_LINE_BYTES:
                        raise _unreadable(path, f"holds a line of more than {LONGEST_LINE_BYTES} bytes")
                    yield path, line

    def stored(self) -> list[Place]:
        """The segments in order. Other files are not ours: copies that a file synchroniser makes, a system's own."""
        return [self._folder / name for name in sorted(self._names()) if _SEGMENT_NAME.fullmatch(name)]

    def unknown_files(self) -> list[Place]:
        """Other files in the folder."""
        names = sorted(self._names())
        return [self._folder / name for name in names if not (_SEGMENT_NAME.fullmatch(name) or is_partial(name))]

    def _names(self) -> list[str]:
        if isinstance(self._folder, ObjectPath):
            return [path.name for path in self._folder.iterdir()]
        try:
            return os.listdir(self._folder)  # noqa: PTH208 (names alone: a ledger has thousands)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def newest_number(self) -> int:
        segments = self.stored()
        return int(segments[-1].stem) if segments else 0

    def _write(self, data: bytes) -> None:
        """Write the next segment. In an object store it must be new: that stops a driver whose lease was taken over."""
        if isinstance(self._folder, Path):
            self._write_file(self._folder, data)
            return
        number = (self.newest_number() if self._last_number is None else self._last_number) + 1
        segment = self._folder / f"{number:08d}.jsonl"
        try:
            segment.put(data, only_new=True)
        except ChangedError as error:
            # The answer to a put may be lost and the put repeated: then the segment is ours.
            if segment.read_bytes() != data:
                raise _taken_over(segment) from error
        self._last_number = number

    def _write_file(self, folder: Path, data: bytes) -> None:
        """The same on a disk: a name that is new to all hosts, and only while the run's lock is ours.

        Before the first segment of a driver, others may be there that NFS shows late; afterwards none but ours.
        """
        expect_held(folder.parent)
        number = (self.newest_number() if self._last_number is None else self._last_number) + 1
        while True:
            segment = folder / f"{number:08d}.jsonl"
            try:
                with disk_errors(segment):
                    _write_new(segment, data)
            except ChangedError as error:
                if self._last_number is not None:
                    raise _taken_over(segment) from error
                number += 1
                continue
            self._last_number = number
            return


def _with_crc(line: str) -> str:
    return f'{line[:-1]}{_CRC.decode()}{zlib.crc32(line.encode()):08x}"}}'


def _without_crc(path: Place, line: bytes) -> bytes:
    """A line as it was added, held to its checksum where it has one."""
    start, mark, crc = line.rpartition(_CRC)
    if not mark:
        return line
    if crc.rstrip(b"\n") != b'%08x"}' % zlib.crc32(b"}", zlib.crc32(start)):
        raise _unreadable(path, "holds a line that is no record (it isn't what its checksum is of)")
    return start + b"}"


def _write_new(segment: Path, data: bytes) -> None:
    try:
        write_whole(segment, data, below=segment.parent.parent, is_new=True)
    except FileExistsError as error:
        raise ChangedError(f"{segment} is there already") from error


def _taken_over(segment: Place) -> RunError:
    return RunError(
        f"ledger segment {segment} was written by another driver, which has taken the run over; this one stops, its "
        f"tiles since then are computed again"
    )


def _unreadable(path: Place, why: str) -> RunError:
    return RunError(
        f"ledger segment {path} {why}, which no driver writes: what is done can't be known; restore the segment, or "
        f"delete it to compute its tiles again"
    )


@contextmanager
def _opened(path: Path) -> Generator[BufferedReader]:
    """A segment to read; neither a link nor a pipe, at which a reader would wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unreadable(path, "is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unreadable(path, "is no file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _unrepeated(segments: Sequence[Path]) -> Iterator[Path]:
    """The segments without copies of earlier ones: what a copy says would count twice, and undo what came between."""
    sizes = {path: path.lstat().st_size for path in segments}
    shared = {size for size, count in Counter(sizes.values()).items() if count > 1}
    seen: dict[bytes, Path] = {}
    for path in segments:
        if sizes[path] in shared:
            with _opened(path) as file:
                first = seen.setdefault(hashlib.file_digest(file, "blake2b").digest(), path)
            if first != path:
                logger.warning("ledger segment %s is a copy of %s: it is not read", path, first.name)
                continue
        yield path
