"""A call under examination: which of its arguments carry pixels, and the operator that a rule makes of it."""

from __future__ import annotations

from typing import Any

from torch import fx

from unet_core.bounds import torch_calls
from unet_core.bounds.operators import NCYX, SAME, Axes, Described, Kind, Operator

NAMES = {"N": "the batch", "C": "channels", "Y": "space (y)", "X": "space (x)"}


class RefusalError(Exception):
    """Reason why the call at hand has no finite bounds."""


class Call:
    """One call at hand, and what is known of the values before it: what the rules are written in."""

    def __init__(self, node: fx.Node, known: Described) -> None:
        self.node = node
        self.known = known
        self.layer: str = node.meta["layer"]
        self.spatial = [arg for arg in node.all_input_nodes if arg in known and known[arg].dims]
        self.dims = known[self.spatial[0]].dims if self.spatial else ""

    @property
    def name(self) -> str:
        return torch_calls.name_of(self.node)

    def make(
        self, kind: Kind, axes: Axes = SAME, args: dict[str, Any] | None = None, dims: str | None = None
    ) -> Operator:
        return Operator(
            self.node,
            self.layer,
            kind,
            tuple(self.spatial),
            (axes,) * len(self.spatial),
            self.dims if dims is None else dims,
            args=args or {},
        )

    def unbounded(self, why: str) -> Operator:
        """The walk goes on as if the call were pointwise where it keeps the extents, and stops otherwise."""
        sources = [node for node in self.spatial if self.extents(node) == self.extents(self.node)]
        kept = sources[:1] if len(self.node.meta["shape"]) == len(self.dims) else []
        return Operator(
            self.node,
            self.layer,
            "unbounded",
            tuple(kept),
            (SAME,) * len(kept),
            self.dims if kept else "",
            problem=why,
        )

    def adopted(self) -> Operator:
        """A call on what an unbounded one made; pixels again once it has the extents of an earlier value."""
        shape = self.node.meta["shape"]
        for source, operator in reversed(self.known.items()):
            if len(shape) == 4 and operator.dims == NCYX and source.meta["shape"][2:] == shape[2:] != (1, 1):
                return Operator(self.node, self.layer, "pointwise", (source,), (SAME,), NCYX)
        return Operator(self.node, self.layer, "pointwise", dims="")

    def extents(self, node: fx.Node) -> tuple[int, ...]:
        shape = node.meta["shape"]
        if len(shape) != len(self.dims):
            return ()
        return tuple(shape[self.dims.index(axis)] for axis in "YX")

    def expect_planes(self) -> None:
        if self.dims != NCYX:
            raise RefusalError(f"{self.name} runs over dimensions {self.dims}, not over {NCYX}")

    def axis(self, dim: int) -> str:
        return self.dims[dim]

    def expect_constant(self, value: object) -> None:
        if isinstance(value, fx.Node) and not value.meta["constant"]:
            raise RefusalError("its weights are computed from the pixels")
