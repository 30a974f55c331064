"""Damaged segments of a file: strips or tiles that don't decode, where they lie, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiling.geometry import Box

SHOWN = 5


@dataclass(frozen=True, slots=True)
class DamagedSegment:
    """One strip or tile of a level that doesn't decode; `plane` counts the pages of its bands."""

    level: int
    plane: int
    segment: int
    place: Box
    reason: str

    @property
    def key(self) -> tuple[int, int, int]:
        return self.level, self.plane, self.segment


def sentence(damaged: Sequence[DamagedSegment]) -> str:
    """Sentence on what doesn't decode, which names each segment once.

    >>> sentence([DamagedSegment(0, 0, 14, Box(256, 256, 384, 384), "not a JPEG stream")])
    "1 segment of the file doesn't decode, and its pixels hold no data: 14 [256:384, 256:384] (not a JPEG stream)"
    """
    one = len(damaged) == 1
    what = "segment of the file doesn't decode, and its" if one else "segments of the file don't decode, and their"
    each = [f"{item.segment} {item.place} ({item.reason})" for item in damaged[:SHOWN]]
    rest = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
    return f"{len(damaged)} {what} pixels hold no data: {', '.join(each)}{rest}"
