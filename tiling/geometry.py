"""Value types for places and sizes: integers in pixels of the level being segmented, `y` before `x`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tiling.errors import PlanError

Unit = Literal["um", "m", "degree"]


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open rectangle `[y0, y1) x [x0, x1)` in pixels. An empty box has no area and is allowed."""

    y0: int
    x0: int
    y1: int
    x1: int

    def __post_init__(self) -> None:
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise PlanError(f"box {self} ends before it starts; give y0 <= y1 and x0 <= x1")

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def is_empty(self) -> bool:
        return self.area == 0

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def intersect(self, other: Box) -> Box:
        """The common part; an empty box where there is none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))

    def expand(self, top: int, bottom: int, left: int, right: int) -> Box:
        return Box(self.y0 - top, self.x0 - left, self.y1 + bottom, self.x1 + right)

    def translate(self, dy: int, dx: int) -> Box:
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def relative_to(self, other: Box) -> Box:
        """The same box in coordinates whose origin is the other box's corner."""
        return self.translate(-other.y0, -other.x0)

    def contains(self, other: Box) -> bool:
        return self.y0 <= other.y0 and self.x0 <= other.x0 and other.y1 <= self.y1 and other.x1 <= self.x1

    def __str__(self) -> str:
        return f"[{self.y0}:{self.y1}, {self.x0}:{self.x1}]"


@dataclass(frozen=True, slots=True)
class Halo:
    """Pixels of context that a core needs on each side."""

    top: int
    bottom: int
    left: int
    right: int

    def __post_init__(self) -> None:
        if min(self.top, self.bottom, self.left, self.right) < 0:
            raise PlanError(f"halo {self} has a negative side; a halo is 0 px or more on every side")


@dataclass(frozen=True, slots=True)
class PixelSize:
    """The side lengths of one pixel: micrometres in microscopy, metres or degrees in remote sensing."""

    y: float
    x: float
    unit: Unit

    def scaled(self, factor: float) -> PixelSize:
        """The pixel size of a level whose pixels are `factor` times as long."""
        return PixelSize(self.y * factor, self.x * factor, self.unit)


def ceil_to(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
