"""Pixels without data on a mask: how a tile carries where they are, and what that makes of its labels.

They have no class in any output: their label is 255. A tile that was computed or skipped holds 255 there alone, since
no network gives it; a failed one holds it everywhere. So the ledger and the mask together record where data is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.plan import Tile, TilePlan
from tiling.selection.level_pixels import level_pixels
from tiling.sources.present import Fill

Pixels = NDArray[np.generic]
Held = NDArray[np.bool_]
"""`(y, x)`: whether a pixel holds data."""

NO_DATA = 255
"""Their label."""


def fill_of(means: tuple[float, ...], dtype: str) -> Fill:
    """Values that a network sees in place of no data: of each band the mean that its normalisation takes to 0.

    It is what padding shows the network beyond an image's edge, to half a unit for integers.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return tuple(float(np.float32(mean)) for mean in means)
    limits = np.iinfo(str(kind))
    return tuple(float(np.clip(np.rint(mean), limits.min, limits.max)) for mean in means)


def extra_bands(dtype: str | np.dtype[np.generic]) -> int:
    """Bands of a packed tile beyond the image's: floats carry where there is no data themselves, as NaN."""
    return 0 if np.dtype(dtype).kind == "f" else 1


def pack(filled: Pixels, held: Held | None) -> Pixels:
    """A filled tile `(y, x, band)` as it is staged, with where it holds data; None where it does everywhere."""
    if extra_bands(filled.dtype):
        whole = np.ones(filled.shape[:2], filled.dtype) if held is None else held.astype(filled.dtype)
        return np.concatenate([filled, whole[..., np.newaxis]], axis=-1)
    return filled if held is None else np.where(held[..., np.newaxis], filled, filled.dtype.type(np.nan))


def unpack(packed: Pixels, fill: Fill) -> tuple[Pixels, Held | None]:
    """Pixels of a packed tile as a network sees them, and where they hold data; None where they do everywhere."""
    if extra_bands(packed.dtype):
        held = packed[..., -1] != 0
        return np.ascontiguousarray(packed[..., :-1]), None if held.all() else held
    empty = np.isnan(packed[..., 0])
    if not empty.any():
        return packed, None
    return np.where(empty[..., np.newaxis], np.array(fill, packed.dtype), packed), ~empty


@dataclass(frozen=True, slots=True)
class NoDataCounts:
    """Counts of a tile's mask pixels without data.

    Attributes:
        no_data: how many hold no data.
        near: how many hold data and have some of the other kind within the halo, where the network saw what was filled.
        outside: of those without data, how many lie outside of polygons that were asked for.
        apart: of those without data and not outside, how many lie in squares without tissue of a tile that is computed.
    """

    no_data: int = 0
    near: int = 0
    outside: int = 0
    apart: int = 0


ALL_DATA = NoDataCounts()


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Mask of a tile's pixels that hold data, `(y, x)`; `near` as in `NoDataCounts`."""

    held: Held
    near: Held

    @classmethod
    def of(cls, held: Held, tile: Tile, plan: TilePlan) -> Coverage:
        """From where a tile's read holds data. A mask pixel of another size holds it where its centre does."""
        halo = plan.halo
        # Not so far that anything is counted which lies beyond the halo: the read may hold more.
        touched = _any_within(~held, halo.top, halo.bottom)
        touched = _any_within(touched.T, halo.left, halo.right).T
        corner = tile.read.y0, tile.read.x0
        on_mask = held_on_mask(held, corner, tile, plan)
        return cls(on_mask, on_mask & held_on_mask(touched, corner, tile, plan))

    def counts(self, outside: Held | None, apart: Held | None = None) -> NoDataCounts:
        """Counts, with where pixels lie outside of polygons, if some were asked for, and apart from tissue."""
        empty = ~self.held
        within = empty if outside is None else empty & ~outside
        beyond = int(np.count_nonzero(empty)) - int(np.count_nonzero(within))
        bare = 0 if apart is None else int(np.count_nonzero(within & apart))
        return NoDataCounts(int(np.count_nonzero(empty)), int(np.count_nonzero(self.near)), beyond, bare)

    def labelled(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels `(y, x)` with none where there is no data."""
        return np.where(self.held, labels, np.uint8(NO_DATA))

    def weighed(self, probabilities: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Probabilities `(class, y, x)`, 0 where there is no data."""
        return np.where(self.held, probabilities, np.uint8(0))


def held_on_mask(flags: Held, corner: tuple[int, int], tile: Tile, plan: TilePlan) -> Held:
    """The flags of a tile's mask pixels, from those of the level's pixels from a corner on, y before x."""
    rows, cols = level_pixels(tile, plan)
    return flags[np.ix_(rows - corner[0], cols - corner[1])]


def _any_within(flags: Held, before: int, after: int) -> Held:
    """Mask of the rows of which any is set from `before` above to `after` below, column by column."""
    sums = np.zeros((len(flags) + 1, flags.shape[1]), np.int32)
    np.cumsum(flags, axis=0, out=sums[1:])
    places = np.arange(len(flags))
    return sums[np.minimum(places + after + 1, len(flags))] > sums[np.maximum(places - before, 0)]
