"""Where every tile lies. Integers only: no I/O, no clock, no arrays.

The scheme is the U-Net paper's overlap-tile strategy (Ronneberger et al. 2015, figure 2) made exact for
same-padded networks:

- cores are squares on a grid and partition the extent;
- every read has one constant shape and starts on the network's stride grid, since pooling off the grid
  gives other numbers however large the halo is;
- a read that would leave the image is shifted inwards instead, so that the network meets the image's edge,
  and its own padding there, exactly as it would in one pass over the whole image;
- the whole image is mirrored at the right and bottom up to a multiple of the stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tiling.errors import PlanError
from tiling.geometry import Box, Halo, ceil_to

MASK_CHUNK_PX = 256


@dataclass(frozen=True, slots=True)
class Tile:
    """One square of the plan. All boxes in level pixels."""

    index: int
    row: int
    col: int
    core: Box  # what this tile owns
    read: Box  # what it loads
    valid: Box  # the core clipped to the extent: all that it writes

    @property
    def name(self) -> str:
        return f"{self.row},{self.col}"


@dataclass(frozen=True, slots=True)
class Edges:
    """Which sides of a read are edges of the (mirrored) image."""

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

    @property
    def padded(self) -> int:
        """The extent mirrored up to a multiple of the stride."""
        return ceil_to(self.extent, self.stride)

    @property
    def count(self) -> int:
        return -(-self.extent // self.core)

    @property
    def read(self) -> int:
        """The constant length of every read; the whole padded extent where that is shorter."""
        wanted = self.core + ceil_to(self.before, self.stride) + ceil_to(self.after, self.stride)
        return min(self.padded, wanted)

    def read_start(self, position: int) -> int:
        wanted = position * self.core - ceil_to(self.before, self.stride)
        return min(max(wanted, 0), self.padded - self.read)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """The tiles of one level.

    Args:
        extent: height and width of the level, in pixels.
        core_px: side of a core; also the side of a mask shard, so that every shard has one writer.
        stride: the model's stride along y and x, in pixels.
        halo: the context that the model needs on each side of a core, in pixels.

    Raises:
        PlanError: a core off the stride grid, or an empty extent.
    """

    extent: tuple[int, int]
    core_px: int
    stride: tuple[int, int]
    halo: Halo
    y: AxisPlan = field(init=False)
    x: AxisPlan = field(init=False)

    def __post_init__(self) -> None:
        (height, width), (stride_y, stride_x), halo = self.extent, self.stride, self.halo
        object.__setattr__(self, "y", AxisPlan(height, self.core_px, stride_y, halo.top, halo.bottom))
        object.__setattr__(self, "x", AxisPlan(width, self.core_px, stride_x, halo.left, halo.right))

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
    def padded(self) -> tuple[int, int]:
        """The extent mirrored up to a multiple of the stride."""
        return self.y.padded, self.x.padded

    @property
    def chunk_px(self) -> int:
        """Side of a mask chunk: the largest divisor of the core that is at most 256 px."""
        return next(px for px in range(min(MASK_CHUNK_PX, self.core_px), 0, -1) if self.core_px % px == 0)

    def tile(self, index: int) -> Tile:
        """The tile with that index, counted row by row."""
        if not 0 <= index < self.count:
            raise PlanError(f"tile {index} is not in the plan; give an index from 0 to {self.count - 1}")
        row, col = divmod(index, self.x.count)
        core = Box(0, 0, self.core_px, self.core_px).translate(row * self.core_px, col * self.core_px)
        height, width = self.read_shape
        read = Box(0, 0, height, width).translate(self.y.read_start(row), self.x.read_start(col))
        return Tile(index, row, col, core, read, core.intersect(Box(0, 0, *self.extent)))

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

    def edges(self, tile: Tile) -> Edges:
        """Which sides of the tile's read are edges of the mirrored image."""
        height, width = self.padded
        read = tile.read
        return Edges(read.y0 == 0, read.y1 == height, read.x0 == 0, read.x1 == width)

    def touching(self, box: Box) -> list[int]:
        """Indices of the tiles whose core meets the box."""
        clipped = box.intersect(Box(0, 0, *self.extent))
        if clipped.is_empty:
            return []
        rows = range(clipped.y0 // self.core_px, -(-clipped.y1 // self.core_px))
        cols = range(clipped.x0 // self.core_px, -(-clipped.x1 // self.core_px))
        return [row * self.x.count + col for row in rows for col in cols]


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
