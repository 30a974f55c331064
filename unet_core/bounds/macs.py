"""Counted work: what a core costs computed minimally, with a plain halo, and as its share of the whole image."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from torch import fx, nn

from unet_core.bounds.axis import TransposedConvolution
from unet_core.bounds.footprint import footprint_of
from unet_core.bounds.minimal import Edges, minimal
from unet_core.bounds.network import Network, inferred
from unet_core.bounds.operators import Operator, macs_per_pixel


@dataclass(frozen=True, slots=True)
class Operations:
    """Multiply-accumulates of one core inside the image.

    useful: its share, by area, of a pass over the whole image. computed: the minimal graph. plain: a pass
    over the core with its halo on the stride grid.
    """

    useful: int
    computed: int
    plain: int

    @property
    def ratio(self) -> float:
        """Computed to useful; 1 is the limit."""
        return self.computed / self.useful

    @property
    def plain_ratio(self) -> float:
        return self.plain / self.useful


def operations(
    module: nn.Module, bands: int, core_px: tuple[int, int], *, network: Network | None = None
) -> Operations:
    """Count the multiply-accumulates of a core of `core_px` input pixels (y, x), multiples of the stride.

    Raises `FootprintError` as `minimal` does. `network` is `inferred(module, bands)`.
    """
    network = network or inferred(module, bands)
    network.expect_bounded()
    footprint = footprint_of(network)
    halo = footprint.halo_on_grid()
    read = (core_px[0] + halo.top + halo.bottom, core_px[1] + halo.left + halo.right)
    need = footprint.need((0, 0, *core_px), (-halo.top, -halo.left))
    edges = Edges(top=False, bottom=False, left=False, right=False)
    graph = minimal(module, bands, read_px=read, need=need, edges=edges, network=network).graph
    per_pixel = sum((_per_input_pixel(network, op) for op in network.operators.values()), Fraction(0))
    return Operations(
        useful=int(per_pixel * core_px[0] * core_px[1]),
        computed=sum(_macs(node) for node in graph.nodes),
        plain=int(per_pixel * read[0] * read[1]),
    )


def _macs(node: fx.Node) -> int:
    return node.meta.get("macs", 0)


def _per_input_pixel(network: Network, operator: Operator) -> Fraction:
    """Multiply-accumulates per pixel of the image."""
    if not operator.inputs:
        return Fraction(0)
    counted = operator.inputs[0] if isinstance(operator.axes[0][0], TransposedConvolution) else operator.node
    y, x = network.places[counted]
    return macs_per_pixel(operator) / (y.step * x.step)
