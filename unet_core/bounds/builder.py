"""Builder of the minimal graph, operator by operator.

A value may be computed a few pixels wider than needed where cutting it would cost a copy; what lies outside
the needed span is never looked at by anything that reaches the core.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import getitem
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn import functional

from unet_core.bounds import torch_calls
from unet_core.bounds.axis import Border, Downsample, Span, TransposedConvolution, Upsample, Window
from unet_core.bounds.network import Bounds, Network
from unet_core.bounds.operators import Kind, Operator, macs_per_pixel
from unet_core.bounds.sides import Laid, is_nearly, lay_transposed, lay_window

Spans = tuple[Span, Span]  # y, x
Rewrite = Callable[[fx.Graph], None]
"""Changes a graph in place, and not what it computes."""


@dataclass(frozen=True, slots=True)
class Needed:
    """The spans of all values along one axis, and their edges where the image has one."""

    spans: dict[fx.Node, Span]
    bounds: dict[fx.Node, Bounds]


@dataclass(frozen=True, slots=True)
class Part:
    """A value of the new graph, or some of its rows: `have` is what it covers, which holds what is needed."""

    node: fx.Node
    have: Spans


class Builder:
    """Writes the new graph operator by operator, one public method per kind of operator."""

    def __init__(self, network: Network, y: Needed, x: Needed, rewrite: Rewrite | None = None) -> None:
        self.network = network
        self.rewrite = rewrite
        self.needs = (y, x)
        self.graph = fx.Graph()
        self.parts: dict[fx.Node, Part] = {}
        self.constants: dict[fx.Node, fx.Node] = {}
        self.sole = network.used_once()

    def build(self, module: nn.Module, read_px: tuple[int, int]) -> fx.GraphModule:
        for node, operator in self.network.operators.items():
            if operator.kind == "input":
                tile = Part(self.graph.placeholder("tiles_NCHW"), (Span(0, read_px[0]), Span(0, read_px[1])))
                self.parts[node] = self._cut(tile, self._need(node))
            else:
                self.parts[node] = self._within(operator, self._computed(operator))
        output = self.network.output
        self.graph.output(self._cut(self.parts[output], self._need(output)).node)
        return self._module(module, "MinimalNetwork")

    # What the builders share

    def _module(self, module: nn.Module, name: str) -> fx.GraphModule:
        """The finished graph as a module, rewritten first."""
        if self.rewrite is not None:
            self.rewrite(self.graph)
        return fx.GraphModule(module, self.graph, name)

    def _computed(self, operator: Operator) -> Part:
        return _KINDS[operator.kind](self, operator)

    def _need(self, node: fx.Node) -> Spans:
        return self.needs[0].spans[node], self.needs[1].spans[node]

    def _bounds(self, node: fx.Node) -> tuple[Bounds, Bounds]:
        return self.needs[0].bounds[node], self.needs[1].bounds[node]

    def _cut(self, part: Part, to: Spans, dims: str = "NCYX") -> Part:
        """The view of `part` that covers `to`, or `part` itself."""
        if part.have == to:
            return part
        assert all(have.holds(span) for have, span in zip(part.have, to, strict=True)), (part.have, to)
        local = {axis: span.shift(-have.lo) for axis, span, have in zip("YX", to, part.have, strict=True)}
        index = tuple(slice(local[a].lo, local[a].hi) if a in local else slice(None) for a in dims)
        return Part(self.graph.call_function(getitem, (part.node, index)), to)

    def _within(self, operator: Operator, part: Part) -> Part:
        """Cut off what lies beyond the image's edges: the next layer's padding must touch the last pixel."""
        if operator.node.meta.get("many"):
            return part  # a tuple; its items are cut
        y, x = (span.clip(*bound) for span, bound in zip(part.have, self._bounds(operator.node), strict=True))
        return self._cut(part, (y, x), operator.dims)

    def _constant(self, value: Any) -> Any:
        """A parameter, or what is computed from parameters alone."""
        if not isinstance(value, fx.Node):
            return value
        if value not in self.constants:
            self.constants[value] = self.graph.node_copy(value, self._constant)
        return self.constants[value]

    def _filled(self, part: Part, laid: tuple[Laid, Laid], value: float) -> fx.Node:
        """The part of a value that an operator runs on, widened where there is nothing to read."""
        cut = self._cut(part, (laid[0].read, laid[1].read))
        if not any(side.front or side.back for side in laid):
            return cut.node
        amounts = [laid[1].front, laid[1].back, laid[0].front, laid[0].back]
        return self.graph.call_function(functional.pad, (cut.node, amounts, "constant", value))

    # One method per kind

    def identity(self, operator: Operator) -> Part:
        return self.parts[operator.inputs[0]]

    def item(self, operator: Operator) -> Part:
        items = self.parts[operator.inputs[0]]
        return Part(self.graph.call_function(getitem, (items.node, operator.node.args[1])), items.have)

    def pointwise(self, operator: Operator) -> Part:
        sources = [self.parts[node] for node in operator.inputs]
        need = self._need(operator.node)
        if all(part.have == sources[0].have for part in sources) and _nearly(sources[0].have, need):
            need = sources[0].have
        whole = all(part.have == need for part in sources)
        dims = [self.network.operators[node].dims for node in operator.inputs]
        cuts = [self._cut(part, need, d) for part, d in zip(sources, dims, strict=True)]
        renamed = dict(zip(operator.inputs, (cut.node for cut in cuts), strict=True))
        node = self.graph.node_copy(operator.node, lambda old: renamed.get(old) or self._constant(old))
        if "call" in operator.args:
            node.args = (cuts[0].node, *operator.args["call"][1:])
        _set_in_place(node, whole and operator.inputs[0] in self.sole)
        if operator.name == "linear":
            node.meta["macs"] = len(need[0]) * len(need[1]) * macs_per_pixel(operator)
        return Part(node, need)

    def window(self, operator: Operator) -> Part:
        part, args, need = self.parts[operator.inputs[0]], operator.args, self._need(operator.node)
        bounds, can_fill = self._bounds(operator.inputs[0]), bool(args.get("count_include_pad", True))
        laid: list[Laid] = []
        for i in (0, 1):
            window = cast("Window", operator.axes[0][i])
            most = None if "weight" in args else window.reach // 2
            laid.append(lay_window(window, need[i], part.have[i], bounds[i], most_pad=most, can_fill=can_fill))
        y, x = laid
        value = float("-inf") if operator.name.startswith("max_pool") else 0.0
        tile, pad = self._filled(part, (y, x), value), (y.pad, x.pad)
        node = self._convolved(args, tile, pad) if "weight" in args else self._pooled(operator, tile, pad)
        node.meta["frame"] = tuple(Span(side.read.lo - side.front, side.read.hi + side.back) for side in laid)
        node.meta["macs"] = len(y.out) * len(x.out) * macs_per_pixel(operator)
        return Part(node, (y.out, x.out))

    def _convolved(self, args: dict[str, Any], tile: fx.Node, pad: tuple[int, int]) -> fx.Node:
        weights = (self._constant(args["weight"]), self._constant(args["bias"]))
        rest = (torch_calls.pair(args["stride"]), pad, torch_calls.pair(args["dilation"]), args["groups"])
        return self.graph.call_function(torch.conv2d, (tile, *weights, *rest))

    def _pooled(self, operator: Operator, tile: fx.Node, pad: tuple[int, int]) -> fx.Node:
        args = operator.args
        kernel = torch_calls.pair(args["kernel_size"])
        stride = torch_calls.pair(args["stride"] or kernel)
        if operator.name == "avg_pool2d":
            rest = (False, args["count_include_pad"], args["divisor_override"])
            return self.graph.call_function(functional.avg_pool2d, (tile, kernel, stride, pad, *rest))
        rest = (kernel, stride, pad, torch_calls.pair(args["dilation"]), False)
        indices = operator.name == "max_pool2d_with_indices" or bool(args["return_indices"])
        return self.graph.call_function(functional.max_pool2d, (tile, *rest, indices))

    def spread(self, operator: Operator) -> Part:
        part, args = self.parts[operator.inputs[0]], operator.args
        need, asked = self._need(operator.node), self._asked(operator)
        if _nearly(part.have, asked):
            asked = part.have
        laid = [lay_transposed(cast("TransposedConvolution", operator.axes[0][i]), need[i], asked[i]) for i in (0, 1)]
        tile = self._filled(part, (laid[0], laid[1]), 0.0)
        weights = (self._constant(args["weight"]), self._constant(args["bias"]))
        pad, extra = (laid[0].pad, laid[1].pad), (laid[0].extra, laid[1].extra)
        rest = (torch_calls.pair(args["stride"]), pad, extra, args["groups"], torch_calls.pair(args["dilation"]))
        node = self.graph.call_function(torch.conv_transpose2d, (tile, *weights, *rest))
        node.meta["macs"] = len(asked[0]) * len(asked[1]) * macs_per_pixel(operator)
        return Part(node, (laid[0].out, laid[1].out))

    def _asked(self, operator: Operator) -> Spans:
        """Demand of this operator alone on its first input."""
        need, bounds = self._need(operator.node), self._bounds(operator.inputs[0])
        y, x = (operator.axes[0][i].back(need[i], *bounds[i]) for i in (0, 1))
        return y, x

    def resample(self, operator: Operator) -> Part:
        part, need, args = self.parts[operator.inputs[0]], self._need(operator.node), operator.args
        asked, laid, out = self._asked(operator), list[Laid](), list[Span]()
        for i in (0, 1):
            axis_map = operator.axes[0][i]
            if isinstance(axis_map, Downsample):
                whole = Span(need[i].lo * axis_map.factor, need[i].hi * axis_map.factor)
                there = Span(max(whole.lo, part.have[i].lo), min(whole.hi, part.have[i].hi))
                laid.append(Laid(there, need[i], front=there.lo - whole.lo, back=whole.hi - there.hi))
            else:
                factor = cast("Upsample", axis_map).factor
                laid.append(Laid(asked[i], Span(asked[i].lo * factor, asked[i].hi * factor)))
            out.append(laid[i].out)
        tile, size = self._filled(part, (laid[0], laid[1]), 0.0), (len(out[0]), len(out[1]))
        if operator.name.startswith("pixel"):
            shuffle = functional.pixel_shuffle if operator.name == "pixel_shuffle" else functional.pixel_unshuffle
            node = self.graph.call_function(shuffle, (tile, args["factor"]))
        else:
            options: dict[str, Any] = {"size": size, "mode": args["mode"], "align_corners": args["align_corners"]}
            node = self.graph.call_function(functional.interpolate, (tile,), options)
        return Part(node, (out[0], out[1]))

    def border(self, operator: Operator) -> Part:
        part, need, asked = self.parts[operator.inputs[0]], self._need(operator.node), self._asked(operator)
        cut, bounds = self._cut(part, asked), self._bounds(operator.inputs[0])
        amounts, have = list[int](), list[Span]()
        for i in (1, 0):
            before = cast("Border", operator.axes[0][i]).before
            taps = need[i].shift(-before)
            first, last = bounds[i]
            front = max(0, first - taps.lo) if first is not None else 0
            back = max(0, taps.hi - last) if last is not None else 0
            amounts += [front, back]
            have.append(Span(asked[i].lo - front + before, asked[i].hi + back + before))
        amounts += operator.args["channels"]
        if not any(amounts):
            return Part(cut.node, (have[1], have[0]))
        rest = (amounts, operator.args["mode"], operator.args["value"])
        return Part(self.graph.call_function(functional.pad, (cut.node, *rest)), (have[1], have[0]))

    def crop(self, operator: Operator) -> Part:
        part, source = self.parts[operator.inputs[0]], self.network.operators[operator.inputs[0]]
        need = self._need(operator.node)
        if any(isinstance(axis_map, Window) for axis_map in operator.axes[0]):
            part = self._thinned(operator, part, source.dims)
        else:
            befores = [cast("Border", axis_map).before for axis_map in operator.axes[0]]
            part = Part(part.node, (part.have[0].shift(befores[0]), part.have[1].shift(befores[1])))
        if operator.args["index"] is None:
            return part
        part = self._cut(part, need, source.dims)
        return Part(self.graph.call_function(getitem, (part.node, operator.args["index"])), need)

    def _thinned(self, operator: Operator, part: Part, dims: str) -> Part:
        """Every n-th pixel, by slicing."""
        need, local = self._need(operator.node), dict[str, slice]()
        for i, axis in enumerate("YX"):
            axis_map = operator.axes[0][i]
            window = axis_map if isinstance(axis_map, Window) else Window(1, before=cast("Border", axis_map).before)
            taps = window.taps(need[i]).shift(-part.have[i].lo)
            local[axis] = slice(taps.lo, taps.hi, window.stride)
        index = tuple(local.get(axis, slice(None)) for axis in dims)
        return Part(self.graph.call_function(getitem, (part.node, index)), need)

    def unpool(self, operator: Operator) -> Part:
        """Indices count pixels of what the pooling read, so the result has exactly that extent."""
        asked = self._asked(operator)
        values, indices = (self._cut(self.parts[node], asked).node for node in operator.inputs)
        pool = self.network.operators[operator.inputs[1]].inputs[0]
        frame: Spans = self.parts[pool].node.meta["frame"]
        size = (len(frame[0]), len(frame[1]))
        return Part(self.graph.call_function(torch.ops.aten.max_unpool2d.default, (values, indices, size)), frame)


_KINDS: dict[Kind, Callable[[Builder, Operator], Part]] = {
    "identity": Builder.identity,
    "item": Builder.item,
    "pointwise": Builder.pointwise,
    "window": Builder.window,
    "spread": Builder.spread,
    "resample": Builder.resample,
    "border": Builder.border,
    "crop": Builder.crop,
    "unpool": Builder.unpool,
}


def _nearly(have: Spans, need: Spans) -> bool:
    return all(is_nearly(h, n) for h, n in zip(have, need, strict=True))


def _set_in_place(node: fx.Node, in_place: bool) -> None:
    """Let a pointwise call overwrite its input, or keep it from doing so."""
    target = node.target
    if inspect.isfunction(target) and "inplace" in inspect.signature(target).parameters:
        bound = inspect.signature(target).bind(*node.args, **node.kwargs)
        bound.arguments["inplace"] = in_place
        node.args, node.kwargs = bound.args, bound.kwargs
    elif torch_calls.is_in_place(node) and not in_place:
        node.target = torch_calls.out_of_place(node)
