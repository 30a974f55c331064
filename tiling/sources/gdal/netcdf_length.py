"""Length of a netCDF file of the classic kinds, as its header says it.

What a file that was cut lacks the library reads as 0 and calls data. Specification: netCDF Classic and 64-bit Offset
File Formats (CDF-1, CDF-2 and CDF-5), https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import BinaryIO

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Bytes of a value, by its type."""
_MOST_ENTRIES = 65_536


@dataclass(frozen=True, slots=True)
class _Variable:
    begin: int
    size_bytes: int
    of_records: bool


class _Header:
    """Numbers of a header, one after another; those of CDF-5 have eight bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._entries = file, 0
        version = self._number(4) & 0xFF
        self._wide = 8 if version == 5 else 4
        self._offset = 4 if version == 1 else 8

    def count(self) -> int:
        return self._number(self._wide)

    def variables(self) -> list[_Variable]:
        """Its variables, after dimensions and attributes."""
        sides = [self._dimension() for _ in range(self._listed())]
        self._skip_attributes()
        return [self._variable(sides) for _ in range(self._listed())]

    @property
    def streaming(self) -> int:
        """Number of records of a file that was not closed."""
        return (1 << 8 * self._wide) - 1

    def _dimension(self) -> int:
        self._skip(self.count())
        return self.count()

    def _variable(self, sides: list[int]) -> _Variable:
        self._skip(self.count())
        own = [sides[self.count()] for _ in range(self._bounded(self.count()))]
        self._skip_attributes()
        value_bytes = _SIZES[self._number(4)]
        self.count()  # its size as the file says it, which large ones say wrong
        of_records = bool(own) and own[0] == 0
        return _Variable(self._number(self._offset), math.prod(own[of_records:]) * value_bytes, of_records)

    def _skip_attributes(self) -> None:
        for _ in range(self._listed()):
            self._skip(self.count())
            value_bytes = _SIZES[self._number(4)]
            self._skip(self.count() * value_bytes)

    def _listed(self) -> int:
        """Entries of a list, after what it is a list of."""
        self._number(4)
        return self._bounded(self.count())

    def _bounded(self, entries: int) -> int:
        self._entries += entries
        if self._entries > _MOST_ENTRIES:
            raise ValueError(f"it names {self._entries} things")
        return entries

    def _number(self, count: int) -> int:
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError("its header ends early")
        return int.from_bytes(data, "big")

    def _skip(self, count: int) -> None:
        self._file.seek(_padded(count), 1)


def netcdf_length(file: BinaryIO) -> int:
    """Bytes that a file has at the least if it is whole.

    Raises:
        EOFError: its header is cut.
        ValueError, LookupError, OverflowError: it is none, or one of more variables than are counted.
    """
    header = _Header(file)
    records = header.count()
    variables = header.variables()
    of_records = [each.size_bytes for each in variables if each.of_records]
    step = of_records[0] if len(of_records) == 1 else sum(map(_padded, of_records))
    if records == header.streaming:
        records = 0
    ends = [each.begin + each.size_bytes for each in variables if not each.of_records]
    ends += [each.begin + (records - 1) * step + each.size_bytes for each in variables if each.of_records and records]
    return max(ends, default=0)


def _padded(count: int) -> int:
    return -(-count // 4) * 4
