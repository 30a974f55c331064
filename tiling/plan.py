"""Plan of a level: the place of every tile. Integers only: no I/O, no clock, no arrays.

The scheme is the U-Net paper's overlap-tile strategy (Ronneberger et al. 2015, figure 2) made exact for
same-padded networks:

- cores are squares on a grid and partition the extent;
- every read has one constant shape and starts on the network's stride grid, since pooling off the grid
  gives other numbers however large the halo is;
- a read that would leave the image is shifted inwards instead, so that the network meets the image's edge,
  and its own padding there, exactly as it would in one pass over the whole image;
- the whole image is mirrored at the right and bottom up to a multiple of the stride; around it, for a network
  that pads nothing, lies the mirrored context that its paper gives it: image and margins are the frame;
- the mask may be finer or coarser than the image: cores lie on the stride grid, where both have whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from tiling.errors import PlanError
from tiling.geometry import IMAGE_GRID, Box, Halo, OutputGrid, ceil_to

MASK_CHUNK_PX = 256

MAX_TILES = 20_000_000
"""A million take 0.6 GB in the driver (docs/scale.md)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One square of the plan. Core and read are in level pixels, valid in the mask's: the same, but for its scale."""

    index: int
    row: int
    col: int
    core: Box  # what this tile owns
    read: Box  # what it loads; what lies outside the image is mirrored
    valid: Box  # the core clipped to the extent, on the mask: all that it writes

    @property
    def name(self) -> str:
        return f"{self.row},{self.col}"


@dataclass(frozen=True, slots=True)
class Edges:
    """Sides of a read that are edges of the frame: the image with what is mirrored around it."""

    top: bool
    bottom: bool
    left: bool
    right: bool


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """The plan along one axis; the two axes are independent."""

    extent: int
    core: int
    stride: int
    before: int
    after: int
    scale: Fraction = Fraction(1)
    context: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.extent < 1:
            raise PlanError(
                f"an image side of {self.extent} px holds nothing to segment; give an image of 1 px or more"
            )
        if self.stride < 1:
            raise PlanError(f"stride {self.stride} px is below 1 px; a network's stride is 1 px or more")
        if self.core < 1 or self.core % self.stride:
            nearest = max(self.stride, round(self.core / self.stride) * self.stride)
            raise PlanError(
                f"core {self.core} px is not a multiple of the model's stride {self.stride} px: reads would start "
                f"off the stride grid and labels would differ; use {nearest} px"
            )
        if self.scale <= 0 or (self.stride * self.scale).denominator != 1:
            raise PlanError(
                f"scale {self.scale} gives no whole number of mask pixels for the stride of {self.stride} px: cores "
                f"would share mask pixels; use a network whose stride times its scale is a whole number"
            )
        if self.context[0] < 0 or self.context[1] < 0 or self.context[0] % self.stride:
            raise PlanError(
                f"context of {self.context[0]} and {self.context[1]} px doesn't start on the stride grid of "
                f"{self.stride} px: no read could start with it; use a multiple of the stride before the image"
            )

    @property
    def frame(self) -> tuple[int, int]:
        """Start and stop of the extent mirrored up to a multiple of the stride, with the context around it."""
        return -self.context[0], ceil_to(self.extent, self.stride) + self.context[1]

    @property
    def count(self) -> int:
        return -(-self.extent // self.core)

    @property
    def read(self) -> int:
        """The constant length of every read; the whole frame where that is shorter.

        Beyond a multiple of the stride it leaves what the frame leaves, so that reads on the stride grid end where
        the frame does.
        """
        start, stop = self.frame
        after = ceil_to(self.after, self.stride, (stop - start) % self.stride)
        return min(stop - start, self.core + ceil_to(self.before, self.stride) + after)

    def read_start(self, position: int) -> int:
        start, stop = self.frame
        wanted = position * self.core - ceil_to(self.before, self.stride)
        return min(max(wanted, start), stop - self.read)

    @property
    def mask_extent(self) -> int:
        return math.ceil(self.extent * self.scale)

    @property
    def shard(self) -> int:
        """The core on the mask."""
        return int(self.core * self.scale)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """The tiles of one level.

    Args:
        extent: height and width of the level, in pixels.
        core_px: side of a core; on the mask also the side of a shard, so that every shard has one writer.
        stride: the model's stride along y and x, in pixels.
        halo: the context that the model needs on each side of a core, in pixels.
        grid: how the mask's pixels lie on the level's.

    Raises:
        PlanError: a core off the stride grid, an empty extent, more tiles than a driver can hold, or a grid that
            cores can't share out.
    """

    extent: tuple[int, int]
    core_px: int
    stride: tuple[int, int]
    halo: Halo
    grid: OutputGrid = IMAGE_GRID
    y: AxisPlan = field(init=False)
    x: AxisPlan = field(init=False)

    def __post_init__(self) -> None:
        halo, context, scale = self.halo, self.grid.context, self.grid.scale
        sides = ((halo.top, halo.bottom), (halo.left, halo.right))
        margins = ((context.top, context.bottom), (context.left, context.right))
        for axis, name in enumerate("yx"):
            plan = AxisPlan(
                self.extent[axis], self.core_px, self.stride[axis], *sides[axis], scale[axis], margins[axis]
            )
            object.__setattr__(self, name, plan)
        if self.count > MAX_TILES:
            raise PlanError(
                f"{self.extent[0]} x {self.extent[1]} px in cores of {self.core_px} px are {self.count} tiles, and a "
                f"driver holds {MAX_TILES} at most; use a larger --core, coarser pixels (--mpp, --level) or a --region"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tile grid."""
        return self.y.count, self.x.count

    @property
    def count(self) -> int:
        return self.y.count * self.x.count

    @property
    def read_shape(self) -> tuple[int, int]:
        """Height and width of every read, in pixels."""
        return self.y.read, self.x.read

    @property
    def image(self) -> Box:
        """The whole level."""
        return Box(0, 0, *self.extent)

    @property
    def frame(self) -> Box:
        """The image with all that is mirrored around it: what one pass over the whole image sees."""
        (y0, y1), (x0, x1) = self.y.frame, self.x.frame
        return Box(y0, x0, y1, x1)

    @property
    def mask(self) -> Box:
        """The whole mask, in mask pixels, partly covered ones included."""
        return Box(0, 0, self.y.mask_extent, self.x.mask_extent)

    @property
    def shard_shape(self) -> tuple[int, int]:
        """Height and width of a core on the mask."""
        return self.y.shard, self.x.shard

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Height and width of a mask chunk: the largest divisors of a shard's sides that are at most 256 px."""
        return _chunk(self.y.shard), _chunk(self.x.shard)

    def tile(self, index: int) -> Tile:
        """The tile with that index, counted row by row."""
        if not 0 <= index < self.count:
            raise PlanError(f"tile {index} is not in the plan; give an index from 0 to {self.count - 1}")
        row, col = divmod(index, self.x.count)
        core = Box(0, 0, self.core_px, self.core_px).translate(row * self.core_px, col * self.core_px)
        height, width = self.read_shape
        read = Box(0, 0, height, width).translate(self.y.read_start(row), self.x.read_start(col))
        shard = Box(0, 0, self.y.shard, self.x.shard).translate(row * self.y.shard, col * self.x.shard)
        return Tile(index, row, col, core, read, shard.intersect(self.mask))

    def at(self, row: int, col: int) -> Tile:
        """The tile at that place of the grid."""
        rows, cols = self.shape
        if not (0 <= row < rows and 0 <= col < cols):
            raise PlanError(
                f"tile {row},{col} is not in the plan; give a row from 0 to {rows - 1} "
                f"and a column from 0 to {cols - 1}"
            )
        return self.tile(row * cols + col)

    def tiles(self) -> Iterator[Tile]:
        return (self.tile(index) for index in range(self.count))

    def last_read(self, tile: Tile) -> Box:
        """The part of the image that a tile's read covers and that of no later tile, row by row or down strips."""
        rows, cols = self.shape
        y1 = self.extent[0] if tile.row == rows - 1 else self.y.read_start(tile.row + 1)
        x1 = self.extent[1] if tile.col == cols - 1 else self.x.read_start(tile.col + 1)
        return Box(tile.read.y0, tile.read.x0, y1, x1).intersect(self.image)

    def edges(self, tile: Tile) -> Edges:
        """Sides of the tile's read that are edges of the frame."""
        frame, read = self.frame, tile.read
        return Edges(read.y0 == frame.y0, read.y1 == frame.y1, read.x0 == frame.x0, read.x1 == frame.x1)

    def need(self, tile: Tile) -> Box:
        """The tile's valid region, counted from the first output pixel of a pass over its read alone."""
        (scale_y, scale_x), (offset_y, offset_x) = self.grid.scale, self.grid.offset
        # Whole numbers: reads start on the stride grid.
        first_y, first_x = int(tile.read.y0 * scale_y) + offset_y, int(tile.read.x0 * scale_x) + offset_x
        return tile.valid.translate(-first_y, -first_x)

    def touching(self, box: Box) -> list[int]:
        """Indices of the tiles whose core meets the box, in level pixels."""
        clipped = box.intersect(self.image)
        if clipped.is_empty:
            return []
        rows = range(clipped.y0 // self.core_px, -(-clipped.y1 // self.core_px))
        cols = range(clipped.x0 // self.core_px, -(-clipped.x1 // self.core_px))
        return [row * self.x.count + col for row in rows for col in cols]


def _chunk(shard: int) -> int:
    return next(px for px in range(min(MASK_CHUNK_PX, shard), 0, -1) if shard % px == 0)


@dataclass(frozen=True, slots=True)
class TileMemory:
    """The memory that one worker takes at its peak, known before anything runs."""

    tile_bytes: int  # one staged tile
    activation_bytes: int  # the network's live tensors at their peak
    in_flight: int  # tiles that a worker holds at once
    fixed_bytes: int  # interpreter, libraries and weights

    @property
    def worker_bytes(self) -> int:
        return self.fixed_bytes + self.activation_bytes + self.in_flight * self.tile_bytes

    def check(self, workers: int, available_bytes: int, plan: TilePlan) -> None:
        """Refuse a plan that can't fit.

        Raises:
            PlanError: the workers together need more memory than there is.
        """
        needed = workers * self.worker_bytes
        if needed <= available_bytes:
            return
        raise PlanError(
            f"{workers} worker(s) on reads of {plan.read_shape[0]} x {plan.read_shape[1]} px need "
            f"{needed / 2**30:.1f} GiB and {available_bytes / 2**30:.1f} GiB are available: "
            f"the machine would swap or kill them; use a core below {plan.core_px} px or fewer workers"
        )
