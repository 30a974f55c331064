"""The minimal computation: a graph in which each layer computes only what the core needs.

Inside the image convolutions run unpadded and skips are cut to size; at the image's edges each layer keeps
its own padding. Kernels and summation order stay those of the network, so its output on the core is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from unet_core.bounds.axis import Span
from unet_core.bounds.builder import Builder, Needed, Rewrite
from unet_core.bounds.network import Bounds, Network, inferred
from unet_core.errors import FootprintError


@dataclass(frozen=True, slots=True)
class Edges:
    """Sides of a read that are edges of the padded image."""

    top: bool
    bottom: bool
    left: bool
    right: bool


def minimal(
    module: nn.Module,
    bands: int,
    *,
    read_px: tuple[int, int],
    need: tuple[int, int, int, int],
    edges: Edges,
    network: Network | None = None,
    rewrite: Rewrite | None = None,
) -> fx.GraphModule:
    """A module that maps reads (N, bands, y, x) of `read_px` to the logits of `need` alone.

    It shares the parameters of `module` and runs in evaluation mode whatever its mode. `need` is
    (y0, x0, y1, x1) in output pixels of a plain pass over the read. The read's origin must lie on the stride
    grid. `network` is `inferred(module, bands)`, to record the module only once for many reads. `rewrite` changes the
    graph in place before code is made of it, which takes longer than all else here.

    Raises `FootprintError` where the read does not hold what the core needs, or the network is unbounded. At an
    edge of the image, layers that mirror there look inwards, which a core narrower than the halo may not hold.
    """
    network = network or inferred(module, bands)
    return Builder(network, *needs_of(network, read_px, need, edges), rewrite).build(module, read_px)


def needs_of(
    network: Network, read_px: tuple[int, int], need: tuple[int, int, int, int], edges: Edges
) -> tuple[Needed, Needed]:
    """Rows and columns of all values that the outputs `need` of a read depend on; raises as `minimal` does."""
    network.expect_bounded()
    y = _needed(network, 0, read_px[0], Span(need[0], need[2]), (edges.top, edges.bottom))
    return y, _needed(network, 1, read_px[1], Span(need[1], need[3]), (edges.left, edges.right))


_AXES = (("row", "top", "bottom"), ("column", "left", "right"))


def _needed(network: Network, axis: int, read: int, need: Span, edges: tuple[bool, bool]) -> Needed:
    pixels, low, high = _AXES[axis]
    stride, rest = network.stride[axis], network.remainder(axis)
    if edges[1] and read % stride != rest:
        raise FootprintError(
            f"a read of {read} px ends at the image's {high} edge off the stride grid of {stride} px: the whole-image "
            f"pass would lose or shift pixels there; pad the image so that the read is a multiple of {stride} px"
            + (f" and {rest}" if rest else "")
        )
    extents = network.extents(axis, read)
    bounds: dict[fx.Node, Bounds] = {
        node: (0 if edges[0] else None, extents[node] if edges[1] else None) for node in network.operators
    }
    if not need.lo < need.hi or need.clip(*bounds[network.output]) != need:
        raise FootprintError(
            f"output {pixels}s {need.lo} to {need.hi} are not all inside the image's output of "
            f"{extents[network.output]} px: there is nothing to compute there; clip the core to the extent"
        )
    spans = dict(network.walk(axis, need, bounds).spans)
    asked = spans[network.input]
    if not Span(0, read).holds(asked):
        short = f"{-asked.lo} px more at the {low}" if asked.lo < 0 else f"{asked.hi - read} px more at the {high}"
        raise FootprintError(
            f"a read of {read} px does not hold what output {pixels}s {need.lo} to {need.hi} depend on: its seams "
            f"would show; read {short}"
        )
    return Needed(spans, bounds)
