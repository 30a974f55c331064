"""What a worker tells the driver about a tile."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TileResult:
    """What became of a tile: a digest, or the reason why there is none."""

    tile: int
    digest: str | None
    pixels: int
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A place of the image computed again: how many of its labels are not those of the mask, and where it lies.

    `place` is `(y0, x0, y1, x1)` in mask pixels.
    """

    place: tuple[int, int, int, int]
    pixels: int
    differing: int
