"""The minimal computation in strips: a region's rows a few hundred at a time, each feature computed once.

A strip computes of every value the rows that no strip before it has computed, and keeps the last of them that the
next strip looks at. So memory follows the height of a strip, whatever the height of the region, and no halo lies
between strips. Joining kept rows to all new ones would copy these at every layer; so the few rows of a layer's output
that look at kept ones are computed apart, and the others from the new rows as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from unet_core.bounds.axis import Span
from unet_core.bounds.builder import Builder, Needed, Part, Rewrite, Spans
from unet_core.bounds.minimal import Edges, needs_of
from unet_core.bounds.network import Bounds, Network, inferred
from unet_core.bounds.operators import Operator
from unet_core.bounds.strip_plan import Kept, StripRows, layout, planned_rows
from unet_core.errors import FootprintError

# Rows that look at kept ones are computed apart while they are no more than this share of a strip's.
_APART_SHARE = 8


@dataclass(frozen=True, slots=True)
class Strip:
    """One strip of a region.

    `module` maps the rows `read` of the read (N, bands, y, x), and what the strip before it kept, to the logits of
    the output rows `out` and what it keeps itself: `logits, *kept = module(rows, *kept)`.
    """

    module: fx.GraphModule
    read: Span
    out: Span


def has_strips(network: Network) -> bool:
    """True if the network can be computed in strips: unpooling counts places in the whole of what was pooled."""
    return all(operator.kind != "unpool" for operator in network.operators.values())


def minimal_strips(
    module: nn.Module,
    bands: int,
    *,
    read_px: tuple[int, int],
    need: tuple[int, int, int, int],
    edges: Edges,
    height_px: int,
    network: Network | None = None,
    rewrite: Rewrite | None = None,
) -> list[Strip]:
    """Strips that compute together what `minimal` does: top to bottom, each `height_px` of the region's input rows.

    The first one computes the halo above too and is lower, so that it takes no more memory than the others where
    that can be. Strips of the same layout share one module. The arguments are those of `minimal`; `height_px` is a
    multiple of the stride.

    Raises `FootprintError` as `minimal` does, for a height off the stride grid, and for networks that unpool.
    """
    network = network or inferred(module, bands)
    y, x = needs_of(network, read_px, need, edges)
    stride = network.stride[0]
    if height_px < stride or height_px % stride:
        raise FootprintError(
            f"strips of {height_px} px are not whole strides of {stride} px: one would not begin where the other "
            f"ends; use {max(1, round(height_px / stride)) * stride} px"
        )
    if not has_strips(network):
        raise FootprintError("the network unpools, which counts places in the whole tile: compute it without strips")
    plan = planned_rows(network, y, Span(need[0], need[2]), height_px)
    strips, made, before = list[Strip](), dict[object, tuple[fx.GraphModule, Kept]](), dict[fx.Node, Spans]()
    for rows in plan:
        key = layout(network, rows, before, plan[0].out.lo)
        if key not in made:
            builder = _StripBuilder(network, y.bounds, x, rows, before, rewrite)
            made[key] = builder.build_strip(module, read_px[1]), builder.kept
        graph, kept = made[key]
        before = {node: (rows.kept[node], columns) for node, (_, columns) in kept.items()}
        strips.append(Strip(graph, rows.read(network), rows.out))
    return strips


class _StripBuilder(Builder):
    """Writes the graph of one strip: each operator sees the rows that it asks for, kept and new ones joined."""

    def __init__(
        self,
        network: Network,
        bounds: Mapping[fx.Node, Bounds],
        x: Needed,
        rows: StripRows,
        before: Kept,
        rewrite: Rewrite | None,
    ) -> None:
        super().__init__(network, Needed(dict(rows.new), dict(bounds)), x, rewrite)
        self.rows = rows
        self.before = before
        self.kept: dict[fx.Node, Spans] = {}
        self.pieces: dict[fx.Node, list[Part]] = {}

    def build_strip(self, module: nn.Module, width_px: int) -> fx.GraphModule:
        """The strip's module; `kept` tells afterwards what it returns besides the logits."""
        tile = Part(self.graph.placeholder("tiles_NCHW"), (self.rows.read(self.network), Span(0, width_px)))
        for place, (node, spans) in enumerate(self.before.items()):
            self.pieces[node] = [Part(self.graph.placeholder(f"kept_{place}"), spans)]
        kept = dict[fx.Node, Part]()
        for node, operator in self.network.operators.items():
            if operator.kind == "input":
                self.pieces[node] = [self._cut(tile, (tile.have[0], self.needs[1].spans[node]))]
            elif node in self.rows.new:
                self._add(node, operator)
            if node in self.rows.kept:
                # At once: what comes next may overwrite the rows.
                part = kept[node] = self._copied(node, self.rows.kept[node])
                self.kept[node] = part.have
        output = self.network.output
        logits = self._cut(self._joined(output, self.rows.out), (self.rows.out, self.needs[1].spans[output]))
        self.graph.output((logits.node, *(part.node for part in kept.values())))
        return self._module(module, "MinimalStrip")

    def _add(self, node: fx.Node, operator: Operator) -> None:
        """Compute the new rows of a value: those that look at kept rows apart from the others where they are few."""
        new = self.rows.new[node]
        if operator.name == "cat" and operator.dims == "NCYX" and self._is_split(operator):
            parts = [self._concatenated(operator)]
        elif node.meta.get("many"):
            parts = [self._calculated(operator, new)]
        else:
            middle = self._first_apart(operator, new)
            spans = [Span(new.lo, middle), Span(middle, new.hi)] if new.lo < middle else [new]
            parts = [self._calculated(operator, span) for span in spans]
        self.pieces.setdefault(node, []).extend(parts)

    def _calculated(self, operator: Operator, rows: Span) -> Part:
        """Some rows of a value."""
        node, bounds = operator.node, self.needs[0].bounds
        self.needs[0].spans[node] = rows
        asked: dict[fx.Node, Span] = {}
        for source, axes in zip(operator.inputs, operator.axes, strict=True):
            span = axes[0].back(rows, *bounds[source])
            asked[source] = span.union(asked.get(source, span))
        self.parts = {source: self._joined(source, span) for source, span in asked.items()}
        part = self._within(operator, self._computed(operator))
        return part if node.meta.get("many") else self._cut(part, (rows, part.have[1]), operator.dims)

    def _first_apart(self, operator: Operator, new: Span) -> int:
        """The first new row from which on every input is seen in its last piece; the first of all if that is late."""
        bounds = self.needs[0].bounds
        latest = new.lo + len(new) // _APART_SHARE
        for row in range(new.lo, latest + 1):
            seen = (
                axes[0].back(Span(row, new.hi), *bounds[source]).lo >= self.pieces[source][-1].have[0].lo
                for source, axes in zip(operator.inputs, operator.axes, strict=True)
                if not source.meta.get("many")
            )
            if all(seen):
                return row
        return new.lo

    def _joined(self, node: fx.Node, rows: Span) -> Part:
        """The rows of a value in one tensor: a view of the kept or of the new ones, or both joined."""
        if node.meta.get("many"):
            return self.pieces[node][-1]
        dims = self.network.operators[node].dims
        parts = self._covering(node, rows)
        if len(parts) == 1:
            return parts[0]
        joined = self.graph.call_function(torch.cat, ([part.node for part in parts], dims.index("Y")))
        return Part(joined, (rows, parts[0].have[1]))

    def _covering(self, node: fx.Node, rows: Span) -> list[Part]:
        """Pieces of a value that are the rows together, all of the same columns."""
        dims = self.network.operators[node].dims
        found: list[Part] = []
        for part in self.pieces[node]:
            seen = Span(max(rows.lo, part.have[0].lo), min(rows.hi, part.have[0].hi))
            if seen.lo < seen.hi:
                found.append(self._cut(part, (seen, part.have[1]), dims))
        assert sum(len(part.have[0]) for part in found) == len(rows), (node, rows, [part.have for part in found])
        columns = Span(max(part.have[1].lo for part in found), min(part.have[1].hi for part in found))
        return [self._cut(part, (part.have[0], columns), dims) for part in found]

    def _copied(self, node: fx.Node, rows: Span) -> Part:
        """The rows in memory of their own, so that the rest of the value can be given back."""
        parts = self._covering(node, rows)
        if len(parts) > 1:
            return self._joined(node, rows)
        return Part(self.graph.call_method("clone", (parts[0].node,)), parts[0].have)

    def _is_split(self, operator: Operator) -> bool:
        """True if the rows of an input that the operator sees lie in several pieces."""
        rows = self.rows.new[operator.node]
        if any(source.meta.get("many") for source in operator.inputs):
            return False
        return any(
            sum(part.have[0].lo < rows.hi and rows.lo < part.have[0].hi for part in self.pieces[source]) > 1
            for source in operator.inputs
        )

    def _concatenated(self, operator: Operator) -> Part:
        """Channels put together of inputs in pieces, each piece copied once."""
        rows = self.rows.new[operator.node]
        inputs = [self._covering(source, rows) for source in operator.inputs]
        columns = [parts[0].have[1] for parts in inputs]
        together = Span(max(span.lo for span in columns), min(span.hi for span in columns))
        pieces = [[self._cut(part, (part.have[0], together)).node for part in parts] for parts in inputs]
        return Part(self.graph.call_function(concatenate, (pieces,)), (rows, together))


def concatenate(inputs_NCHW: list[list[Tensor]]) -> Tensor:
    """Channels of all inputs, each given as pieces of rows that lie one below the other."""
    first = inputs_NCHW[0][0]
    # By its strides: columns cut off leave a tensor contiguous in no format.
    is_last = first.stride(1) == 1
    heights = [[piece.shape[2] for piece in pieces] for pieces in inputs_NCHW]
    channels = sum(pieces[0].shape[1] for pieces in inputs_NCHW)
    made = torch.empty(
        (first.shape[0], channels, sum(heights[0]), first.shape[3]),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last if is_last else torch.contiguous_format,
    )
    ends = [[sum(each[: place + 1]) for place in range(len(each))] for each in heights]
    cuts = sorted({0, *(end for each in ends for end in each)})
    for lo, hi in pairwise(cuts):
        rows: list[Tensor] = []
        for pieces, each in zip(inputs_NCHW, ends, strict=True):
            place = next(number for number, end in enumerate(each) if end > lo)
            start = each[place] - pieces[place].shape[2]
            rows.append(pieces[place][:, :, lo - start : hi - start])
        torch.cat(rows, 1, out=made[:, :, lo:hi])
    return made
