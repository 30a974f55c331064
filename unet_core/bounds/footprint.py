"""The footprint of a network: how far its output sees, and which grid its reads must lie on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import fx, nn

from unet_core.bounds.axis import Span
from unet_core.bounds.network import Network, Walk, inferred
from unet_core.errors import FootprintError

# Strides between the two sides of the core that is walked back, so that neither side meets the other.
_CORE_STRIDES = 64


@dataclass(frozen=True, slots=True)
class Halo:
    """Input pixels on each side of a core."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def sides(self) -> tuple[int, int, int, int]:
        return self.top, self.bottom, self.left, self.right

    def rounded_up(self, stride: tuple[int, int]) -> Halo:
        y, x = stride
        return Halo(-(-self.top // y) * y, -(-self.bottom // y) * y, -(-self.left // x) * x, -(-self.right // x) * x)


@dataclass(frozen=True, slots=True)
class Reason:
    """Reason for one side of the halo, or for the stride. `layers`: (path, input pixels), from output to input."""

    pixels: int
    layers: tuple[tuple[str, Fraction], ...]

    def __str__(self) -> str:
        if not self.layers:
            return f"{self.pixels} px"
        most = max(self.layers, key=lambda layer: layer[1])
        of = f" of {len(self.layers)} layers on the path" if len(self.layers) > 1 else ""
        return f"{self.pixels} px: {most[0]} sets {float(most[1]):g} px{of}"


@dataclass(frozen=True, slots=True)
class Reasons:
    """The layers behind every figure of a footprint."""

    stride_y: Reason
    stride_x: Reason
    top: Reason
    bottom: Reason
    left: Reason
    right: Reason


@dataclass(frozen=True, slots=True)
class Footprint:
    """Dependence of a network's output on its input. All lengths in input pixels, y before x.

    stride: read origins and core edges must be multiples of it.
    halo: exact: for a core on the stride grid, the core widened by it suffices, and one pixel less on any
        side does not.
    scale: output pixels per input pixel: 3 for a depth-to-space of 3, 1/4 for a coarser output, else 1.
    offset: where the network pads nothing, the output of a pass starts inside its input: output pixel 0 of a
        read that starts at r is output pixel `scale * r + offset` of the image. 0 for padded networks.
    context: pixels to mirror outside the padded image so that its output covers the whole image; its top
        and left are multiples of the stride. 0 for padded networks.
    """

    stride: tuple[int, int]
    halo: Halo
    scale: tuple[Fraction, Fraction]
    offset: tuple[int, int]
    context: Halo
    reasons: Reasons

    def halo_on_grid(self) -> Halo:
        """The halo, rounded up to multiples of the stride."""
        return self.halo.rounded_up(self.stride)

    def need(self, core: tuple[int, int, int, int], read_origin: tuple[int, int]) -> tuple[int, int, int, int]:
        """Box of `core` (y0, x0, y1, x1 in input pixels) in the output of a read at `read_origin`."""
        edges = [self.scale[i % 2] * (edge - read_origin[i % 2]) - self.offset[i % 2] for i, edge in enumerate(core)]
        if any(edge.denominator != 1 for edge in edges):
            raise FootprintError(
                f"core {core} of a read at {read_origin} does not fall on whole output pixels at scale "
                f"{self.scale[0]}, {self.scale[1]}: use core edges on the stride grid {self.stride}"
            )
        return int(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])


@dataclass(frozen=True, slots=True)
class Unbounded:
    """A layer whose output depends on the whole image, and why."""

    layer: str
    why: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.why}"


def footprint(module: nn.Module, bands: int) -> Footprint:
    """The footprint of `module` on tiles of (N, bands, y, x); in evaluation mode.

    Raises `FootprintError` that names every layer without finite bounds, and where the network can't be traced.
    """
    network = inferred(module, bands)
    network.expect_bounded()
    return footprint_of(network)


def unbounded_layers(module: nn.Module, bands: int) -> list[Unbounded]:
    """The layers of `module` without finite bounds, in order; empty for a network that tiles exactly."""
    return _unbounded(inferred(module, bands))


def approximate_footprint(module: nn.Module, bands: int, halo_px: int) -> Footprint:
    """The footprint of a network with unbounded layers, with `halo_px` on all sides by the user's leave.

    Its stride, scale and offset are exact; unbounded layers count as pointwise. Raises `FootprintError` where
    the output can't be followed back to the input.
    """
    exact = footprint_of(inferred(module, bands))
    return replace(exact, halo=Halo(halo_px, halo_px, halo_px, halo_px))


def footprint_of(network: Network) -> Footprint:
    """The footprint of a recorded network, whose unbounded layers count as pointwise."""
    sides = [_Side.of(network, axis) for axis in (0, 1)]
    y, x = sides
    return Footprint(
        stride=network.stride,
        halo=Halo(y.before, y.after, x.before, x.after),
        scale=(y.scale, x.scale),
        offset=(y.offset, x.offset),
        context=Halo(y.context, y.context_after, x.context, x.context_after),
        reasons=Reasons(
            _stride_reason(network, 0), _stride_reason(network, 1), y.why_before, y.why_after, x.why_before, x.why_after
        ),
    )


def _unbounded(network: Network) -> list[Unbounded]:
    return [Unbounded(op.layer, op.problem) for op in network.operators.values() if op.problem]


@dataclass(frozen=True, slots=True)
class _Side:
    """The footprint along one axis."""

    before: int
    after: int
    scale: Fraction
    offset: int
    context: int
    context_after: int
    why_before: Reason
    why_after: Reason

    @classmethod
    def of(cls, network: Network, axis: int) -> _Side:
        place, stride = network.places[network.output][axis], network.stride[axis]
        scale = 1 / place.step
        offset = math.floor(place.shift * scale) if network.loses_context(axis) else 0
        context = max(0, math.ceil(offset / scale / stride) * stride)
        core = Span(0, _CORE_STRIDES * stride)
        out = Span(int(scale * core.lo) - offset, int(scale * core.hi) - offset)
        walk = network.walk(axis, out)
        read = walk.spans[network.input]
        before, after = max(0, core.lo - read.lo), max(0, read.hi - core.hi)
        return cls(
            before,
            after,
            scale,
            offset,
            context,
            _context_after(network, axis, context, after),
            _halo_reason(network, axis, walk, before, low=True),
            _halo_reason(network, axis, walk, after, low=False),
        )


def _context_after(network: Network, axis: int, before: int, halo: int) -> int:
    """At least the halo, and so much that the network runs at an extent that it is made for."""
    if not network.loses_context(axis):
        return 0
    return halo + (network.remainder(axis) - before - halo) % network.stride[axis]


def _stride_reason(network: Network, axis: int) -> Reason:
    """The first layer whose pixels are as coarse as the stride."""
    stride = network.stride[axis]
    steps = [(op.layer, network.places[node][axis].step) for node, op in network.operators.items()]
    coarsest = next(((layer, step) for layer, step in steps if step == stride), None)
    if coarsest is None:
        coarsest = max(steps, key=lambda entry: entry[1])
    return Reason(stride, (coarsest,) if stride > 1 else ())


def _halo_reason(network: Network, axis: int, walk: Walk, pixels: int, *, low: bool) -> Reason:
    """Pixels that each layer on the path that asks for the outermost one adds to the halo, in input pixels."""

    def border(node: fx.Node) -> Fraction:
        place, span = network.places[node][axis], walk.spans[node]
        return place.step * (span.lo if low else span.hi) + place.shift

    asked_by = walk.low if low else walk.high
    layers: list[tuple[str, Fraction]] = []
    node = network.input
    while node is not network.output:
        consumer = asked_by[node]
        added = border(consumer) - border(node) if low else border(node) - border(consumer)
        if added:
            layers.append((network.operators[consumer].layer, added))
        node = consumer
    return Reason(pixels, tuple(reversed(layers)))
