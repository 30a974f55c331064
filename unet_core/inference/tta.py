"""Test-time augmentation: the network sees every tile mirrored and turned, and the logits are averaged.

Averaging logits is the normalised geometric mean of the probabilities. It is exact at the seams as well: a
mirrored pass over the whole image (padded to the stride grid, whose far edge is then the first) meets its
strides at the mirrored reads' origins, because reads end on the grid; and the halo that a mirrored read needs
at its top lies at the bottom of the read. So under augmentation the footprint is the symmetric one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from unet_core.bounds import Edges, Footprint, Halo
from unet_core.errors import FootprintError
from unet_core.inference.output_region import OutputRegion

Tta = Literal["none", "flips", "d4"]


@dataclass(frozen=True, slots=True)
class Symmetry:
    """One symmetry of the square: mirror rows, mirror columns, then exchange the two axes."""

    flip_y: bool = False
    flip_x: bool = False
    transpose: bool = False

    def of_tile(self, tile_HWC: Tensor) -> Tensor:
        """The tile as the network sees it, contiguous."""
        dims = [axis for axis, flipped in enumerate((self.flip_y, self.flip_x)) if flipped]
        seen = tile_HWC.flip(dims) if dims else tile_HWC
        return seen.transpose(0, 1).contiguous() if self.transpose else seen

    def undo(self, logits_NCHW: Tensor) -> Tensor:
        """The logits back in the tile's own orientation."""
        seen = logits_NCHW.transpose(2, 3) if self.transpose else logits_NCHW
        dims = [axis for axis, flipped in ((2, self.flip_y), (3, self.flip_x)) if flipped]
        return seen.flip(dims) if dims else seen

    def of_read(self, read_px: tuple[int, int]) -> tuple[int, int]:
        return (read_px[1], read_px[0]) if self.transpose else read_px

    def of_region(self, region: OutputRegion, read_px: tuple[int, int], found: Footprint) -> OutputRegion:
        """The region as the network sees it: mirrored sides, mirrored edges."""
        (y0, x0, y1, x1), edges = region.need, region.edges
        if self.flip_y:
            y0, y1 = _mirrored(y0, y1, read_px[0], found, 0)
            edges = Edges(edges.bottom, edges.top, edges.left, edges.right)
        if self.flip_x:
            x0, x1 = _mirrored(x0, x1, read_px[1], found, 1)
            edges = Edges(edges.top, edges.bottom, edges.right, edges.left)
        if self.transpose:
            y0, x0, y1, x1 = x0, y0, x1, y1
            edges = Edges(edges.left, edges.right, edges.top, edges.bottom)
        return OutputRegion((y0, x0, y1, x1), edges)


def _mirrored(low: int, high: int, read: int, found: Footprint, axis: int) -> tuple[int, int]:
    """Outputs [low, high) of a read, counted from its far end in the mirrored read's own outputs."""
    end = found.scale[axis] * read - 2 * found.offset[axis]
    return int(end) - high, int(end) - low


_FLIPS = tuple(Symmetry(flip_y, flip_x) for flip_y in (False, True) for flip_x in (False, True))

SYMMETRIES: dict[Tta, tuple[Symmetry, ...]] = {
    "none": (Symmetry(),),
    "flips": _FLIPS,
    "d4": (*_FLIPS, *(replace(flip, transpose=True) for flip in _FLIPS)),
}


def tta_footprint(found: Footprint, mode: Tta) -> Footprint:
    """The footprint of a network under augmentation: what plan and staging must go by.

    Raises `FootprintError` where a network whose two axes differ in scale can't be turned.
    """
    if mode == "none":
        return found
    stride = found.stride
    if mode == "d4":
        if found.scale[0] != found.scale[1] or found.offset[0] != found.offset[1]:
            raise FootprintError(
                f"augmentation d4 exchanges y and x, and this network scales them by {found.scale[0]} and "
                f"{found.scale[1]}: turned logits would not fit; use flips"
            )
        stride = (math.lcm(*stride), math.lcm(*stride))
    halo = _symmetric(found.halo, mode)
    rests = _rests(found)
    if rests == (0, 0):
        return replace(found, stride=stride, halo=halo, context=_symmetric(found.context, mode).rounded_up(stride))
    return _unpadded(found, stride, halo, rests)


def _rests(found: Footprint) -> tuple[int, int]:
    """Remainders of the extents that the network is made for beyond a multiple of the stride; 0 for padded networks."""
    context, (y, x) = found.context, found.stride
    return (context.top + context.bottom) % y, (context.left + context.right) % x


def _unpadded(found: Footprint, stride: tuple[int, int], halo: Halo, rests: tuple[int, int]) -> Footprint:
    """The footprint of a network that is made for extents off the stride grid, such as 572 px.

    Its mirrored pass starts at the frame's far end, off the grid that cores lie on, and reaches up to a stride
    further. Raises `FootprintError` where its turned outputs would fall between pixels.
    """
    if any((scale * rest).denominator != 1 for scale, rest in zip(found.scale, rests, strict=True)):
        raise FootprintError(
            f"this network takes {rests[0]} x {rests[1]} px beyond a multiple of its stride and gives "
            f"{found.scale[0]} x {found.scale[1]} outputs per pixel: mirrored outputs would fall between pixels; "
            f"use no augmentation"
        )
    if stride != found.stride:
        raise FootprintError(
            f"augmentation d4 exchanges y and x, and this network, which pads nothing, has strides of "
            f"{found.stride[0]} and {found.stride[1]} px: turned reads would lie off its grid; use flips"
        )
    (y, x), (rest_y, rest_x) = stride, rests
    wide = Halo(halo.top + y - 1, halo.bottom + y - 1, halo.left + x - 1, halo.right + x - 1)
    before = wide.rounded_up(stride)
    after_y, after_x = wide.bottom + (rest_y - wide.bottom) % y, wide.right + (rest_x - wide.right) % x
    return replace(found, halo=wide, context=Halo(before.top, after_y, before.left, after_x))


def _symmetric(halo: Halo, mode: Tta) -> Halo:
    y, x = max(halo.top, halo.bottom), max(halo.left, halo.right)
    if mode == "d4":
        y = x = max(y, x)
    return Halo(y, y, x, x)
