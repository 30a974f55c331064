"""TIFF image file directories, read within bounds before any library sees them.

TIFF 6.0 (Adobe, 1992) and BigTIFF. Only the tables are read: which tags there are, and where their values lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.sources.file import ImageFile
from tiling.sources.limits import MAX_DIRECTORIES, MAX_SEGMENTS, MAX_SIDE_PX, MAX_TAG_BYTES, MAX_TAGS

_TYPES = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    5: "u4",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    10: "i4",
    11: "f4",
    12: "f8",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
_ORDERS: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
_PAIRS = frozenset({5, 10})  # rationals: two integers to a value
_ASCII = 2
# How many values a tag may have that a parser loads at once.
_MOST_VALUES = {
    **dict.fromkeys((273, 279, 324, 325), MAX_SEGMENTS),
    **dict.fromkeys((258, 277, 282, 283, 305, 330, 338, 339, 513, 514, 530), 64 * 1024),
    270: MAX_TAG_BYTES,
    347: 1024**2,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: how many values of which type, and where they lie in the file."""

    kind: int
    count: int
    position: int

    @property
    def itemsize(self) -> int:
        return int(_TYPES[self.kind][1]) * (2 if self.kind in _PAIRS else 1)

    @property
    def size_bytes(self) -> int:
        return self.itemsize * self.count


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """Byte order and widths of a TIFF file, from its first bytes."""

    file: ImageFile
    file_bytes: int
    order: Literal["<", ">"]
    big: bool
    first_offset: int

    @classmethod
    def from_file(cls, file: ImageFile) -> TiffLayout:
        header = file.read(16, 0)
        order = _ORDERS.get(header[:2])
        if order is None or len(header) < 8:
            raise SourceError("not a TIFF file: its header is missing")
        version = struct.unpack_from(order + "H", header, 2)[0]
        if version == 42:
            return cls(file, file.size_bytes, order, False, struct.unpack_from(order + "I", header, 4)[0])
        if version != 43 or len(header) < 16 or struct.unpack_from(order + "HH", header, 4) != (8, 0):
            raise SourceError(f"TIFF version {version} is neither 42 (TIFF) nor 43 (BigTIFF)")
        return cls(file, file.size_bytes, order, True, struct.unpack_from(order + "Q", header, 8)[0])


@dataclass(frozen=True, slots=True)
class Directory:
    """One image file directory whose tags were checked against the file's length."""

    layout: TiffLayout
    offset: int
    entries: dict[int, Entry]

    def values(self, code: int) -> npt.NDArray[np.generic] | None:
        """The tag's numbers, rationals divided; None where the tag is absent or lies outside the file."""
        entry = self.entries.get(code)
        if entry is None or entry.size_bytes > MAX_TAG_BYTES:
            return None
        data = self.layout.file.read(entry.size_bytes, entry.position)
        if len(data) < entry.size_bytes:
            return None
        numbers = np.frombuffer(data, self.layout.order + _TYPES[entry.kind])
        if entry.kind not in _PAIRS:
            return numbers
        with np.errstate(divide="ignore", invalid="ignore"):
            return numbers[0::2].astype(np.float64) / numbers[1::2]

    def number(self, code: int, default: int) -> int:
        """The tag's first value."""
        entry = self.entries.get(code)
        if entry is None or entry.count == 0:
            return default
        first = Directory(self.layout, self.offset, {code: Entry(entry.kind, 1, entry.position)}).values(code)
        return default if first is None or not np.isfinite(first[0]) else int(first[0])

    def text(self, code: int) -> str:
        """The tag's text; empty where absent."""
        entry = self.entries.get(code)
        values = self.values(code)
        if entry is None or values is None or entry.kind not in {1, _ASCII, 7}:
            return ""
        return values.tobytes().rstrip(b"\0").decode("utf-8", "replace").strip()

    @property
    def height(self) -> int:
        return self.number(257, 0)

    @property
    def width(self) -> int:
        return self.number(256, 0)

    @property
    def is_reduced(self) -> bool:
        return bool(self.number(254, 0) & 1) or self.number(255, 1) == 2

    @property
    def is_mask(self) -> bool:
        return bool(self.number(254, 0) & 4) or self.number(262, 1) == 4

    @property
    def is_tiled(self) -> bool:
        return self.number(322, 0) > 0


def read_directory(layout: TiffLayout, offset: int) -> Directory:
    """Read the directory at `offset`; `SourceError` where it is no directory or claims the impossible."""
    count = _tag_count(layout, offset)
    entry_bytes, head_bytes = (20, 8) if layout.big else (12, 2)
    body = layout.file.read(count * entry_bytes, offset + head_bytes)
    if len(body) < count * entry_bytes:
        raise SourceError(f"directory at byte {offset} is cut off by the end of the file: the file is truncated")
    directory = Directory(layout, offset, dict(_entries(layout, body, count, offset + head_bytes)))
    if max(directory.height, directory.width) > MAX_SIDE_PX:
        raise SourceError(f"image of {directory.height} x {directory.width} px is over {MAX_SIDE_PX} px a side")
    return directory


def _tag_count(layout: TiffLayout, offset: int) -> int:
    count_format, count_bytes = ("Q", 8) if layout.big else ("H", 2)
    head = layout.file.read(count_bytes, offset) if 8 <= offset < layout.file_bytes else b""
    if len(head) < count_bytes:
        raise SourceError(
            f"directory at byte {offset} lies beyond the end of the file ({layout.file_bytes} bytes): "
            "the file is truncated or damaged"
        )
    count = struct.unpack(layout.order + count_format, head)[0]
    if not 0 < count <= MAX_TAGS:
        raise SourceError(f"directory at byte {offset} claims {count} tags; 1 to {MAX_TAGS} are allowed")
    return count


def _entries(layout: TiffLayout, body: bytes, count: int, base: int) -> Iterator[tuple[int, Entry]]:
    entry_format, entry_bytes, inline_bytes = ("HHQ", 20, 8) if layout.big else ("HHI", 12, 4)
    for index in range(count - 1, -1, -1):  # the first of two equal tags wins
        at = index * entry_bytes
        code, kind, values = struct.unpack_from(layout.order + entry_format, body, at)
        if kind not in _TYPES:
            continue
        value_at = at + entry_bytes - inline_bytes
        entry = Entry(kind, values, base + value_at)
        if entry.size_bytes > inline_bytes:
            position = struct.unpack_from(layout.order + ("Q" if layout.big else "I"), body, value_at)[0]
            entry = Entry(kind, values, position)
            if values > _MOST_VALUES.get(code, values):
                raise SourceError(f"tag {code} claims {values} values; at most {_MOST_VALUES[code]} are read")
            if position + entry.size_bytes > layout.file_bytes:
                continue
        yield code, entry


@dataclass(frozen=True, slots=True)
class Chain:
    """The file's main chain of directories; each is read when it is asked for."""

    layout: TiffLayout
    offsets: tuple[int, ...]

    @classmethod
    def from_layout(cls, layout: TiffLayout) -> Chain:
        """Follow the links. A loop, or a link to nowhere, ends the chain."""
        entry_bytes, head_bytes, link_format = (20, 8, "Q") if layout.big else (12, 2, "I")
        link_bytes = struct.calcsize(link_format)
        offsets: list[int] = []
        seen: set[int] = set()
        offset = layout.first_offset
        while offset and offset not in seen and offset < layout.file_bytes:
            if len(offsets) >= MAX_DIRECTORIES:
                raise SourceError(f"more than {MAX_DIRECTORIES} directories in one file; split it into several files")
            seen.add(offset)
            try:
                count = _tag_count(layout, offset)
            except SourceError:
                break
            offsets.append(offset)
            link = layout.file.read(link_bytes, offset + head_bytes + count * entry_bytes)
            offset = struct.unpack(layout.order + link_format, link)[0] if len(link) == link_bytes else 0
        return cls(layout, tuple(offsets) or (layout.first_offset,))

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> Directory:
        return read_directory(self.layout, self.offsets[index])
