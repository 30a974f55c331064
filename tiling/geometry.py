"""Value types for places and sizes: integers in pixels of the level being segmented, `y` before `x`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
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

    def scaled(self, factor: int) -> Box:
        """The same box on a grid that is `factor` times finer."""
        return Box(self.y0 * factor, self.x0 * factor, self.y1 * factor, self.x1 * factor)

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

    @property
    def sides(self) -> tuple[int, int, int, int]:
        return self.top, self.bottom, self.left, self.right


@dataclass(frozen=True, slots=True)
class OutputGrid:
    """Grid of a network's output pixels on the level's, y before x. By default pixel on pixel.

    Attributes:
        scale: output pixels per level pixel: 3 for a mask three times finer, 1/4 for a coarser one.
        offset: output pixel 0 of a pass over a read that starts at level pixel r is pixel `scale * r + offset` of
            the mask: what a network that pads nothing loses at the near side.
        context: level pixels mirrored outside the padded image, so that such a network's output covers all of it.
    """

    scale: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    offset: tuple[int, int] = (0, 0)
    context: Halo = Halo(0, 0, 0, 0)

    @property
    def is_own(self) -> bool:
        """True if the mask's pixels are the level's."""
        return self.scale == (1, 1)


IMAGE_GRID = OutputGrid()
"""The level's own pixels."""


@dataclass(frozen=True, slots=True)
class PixelSize:
    """The side lengths of one pixel: micrometres in microscopy, metres or degrees in remote sensing."""

    y: float
    x: float
    unit: Unit

    def on(self, grid: OutputGrid) -> PixelSize:
        """The pixel size of a mask on that grid."""
        return PixelSize(self.y / float(grid.scale[0]), self.x / float(grid.scale[1]), self.unit)

    def scaled(self, factor: float) -> PixelSize:
        """The pixel size of a level whose pixels are `factor` times as long."""
        return PixelSize(self.y * factor, self.x * factor, self.unit)


def ceil_to(value: int, multiple: int, rest: int = 0) -> int:
    """The smallest number not below `value` that leaves `rest` when divided by `multiple`."""
    return value + (rest - value) % multiple


def per_px(side_um: tuple[float, float]) -> str:
    """Text of a pixel's sides (y, x in µm), as in `0.5 µm/px`; in metres where it is a map's.

    >>> per_px((0.5, 0.5)), per_px((1e6, 2e6))
    ('0.5 µm/px', '1 x 2 m/px')
    """
    scale, unit = (1.0, "µm") if max(side_um) < 1000 else (1e-6, "m")
    y, x = (f"{value * scale:.4g}" for value in side_um)
    return f"{y} {unit}/px" if y == x else f"{y} x {x} {unit}/px"
