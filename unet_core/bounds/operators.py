"""One call of a recorded network that carries pixels: its kind and, per input and axis, its map of bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import fx

from unet_core.bounds import torch_calls
from unet_core.bounds.axis import AxisMap, Same

Axes = tuple[AxisMap, AxisMap]  # y, x
Kind = Literal[
    "input", "pointwise", "identity", "window", "spread", "resample", "border", "crop", "unpool", "item", "unbounded"
]
SAME: Axes = (Same(), Same())
NCYX = "NCYX"


@dataclass(frozen=True, slots=True)
class Operator:
    """One call that carries pixels. `inputs` are the nodes it takes pixels from, `axes` a map for each.

    `dims` names the dimensions of its result in order ("NCYX"; without C after an argmax). `problem` says why
    it has no finite bounds.
    """

    node: fx.Node = field(compare=False)
    layer: str
    kind: Kind
    inputs: tuple[fx.Node, ...] = field(default=(), compare=False)
    axes: tuple[Axes, ...] = ()
    dims: str = NCYX
    problem: str | None = None
    args: dict[str, Any] = field(default_factory=dict[str, Any], compare=False)

    @property
    def name(self) -> str:
        return torch_calls.name_of(self.node)


Described = dict[fx.Node, Operator]


def macs_per_pixel(operator: Operator) -> int:
    """Multiply-accumulates per output pixel of a convolution, per input pixel of a transposed one."""
    weight = operator.args.get("weight")
    if weight is None:
        return 0
    # (out, in / groups, y, x), or (in, out / groups, y, x) of a transposed convolution: the product is the same.
    return math.prod(weight.meta["shape"])
