"""A recorded network with the places of its values, ready to be walked from the output backwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate

from unet_core.bounds.axis import Span, Window
from unet_core.bounds.operators import Described, Operator
from unet_core.bounds.rules import describe
from unet_core.bounds.torch_calls import VIEWS
from unet_core.bounds.trace import record
from unet_core.errors import FootprintError

Bounds = tuple[int | None, int | None]  # first and last pixel border of a value, None where it goes on
ENDLESS: Bounds = (None, None)
# Divisible by the strides that occur, and wider than what a network without padding loses.
_TRACED_PX = 5760


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a value's pixels: pixel i covers [step*i + shift, step*(i + 1) + shift) of the input."""

    step: Fraction
    shift: Fraction


@dataclass(frozen=True, slots=True)
class Walk:
    """Demand of a span of the output on every value along one axis.

    `low` and `high` name, for every value, the consumer that asks for its first and its last pixel.
    """

    spans: Mapping[fx.Node, Span]
    low: Mapping[fx.Node, fx.Node]
    high: Mapping[fx.Node, fx.Node]


@dataclass(frozen=True, slots=True)
class Network:
    """The operators that the output depends on, in order of computation."""

    operators: Described
    output: fx.Node
    places: Mapping[fx.Node, tuple[Place, Place]]
    stride: tuple[int, int]

    @property
    def input(self) -> fx.Node:
        return next(iter(self.operators))

    def loses_context(self, axis: int) -> bool:
        """True if the output covers less of the image than the input, as where convolutions pad nothing."""
        return self._length(self.output, axis) * self.places[self.output][axis].step < self._length(self.input, axis)

    def remainder(self, axis: int) -> int:
        """Remainder by the stride of an extent that the network is made for; 0 for padded networks."""
        return self._length(self.input, axis) % self.stride[axis]

    def extents(self, axis: int, length: int) -> dict[fx.Node, int]:
        """Pixels of every value along one axis for an input of `length` pixels."""
        found = {self.input: length}
        for node, operator in self.operators.items():
            if operator.inputs:
                found[node] = operator.axes[0][axis].extent(found[operator.inputs[0]])
        return found

    def walk(self, axis: int, out: Span, bounds: Mapping[fx.Node, Bounds] | None = None) -> Walk:
        """Ask backwards from `out`; `bounds` gives the edges of the values where the image ends."""
        spans, low, high = {self.output: out}, dict[fx.Node, fx.Node](), dict[fx.Node, fx.Node]()
        for node, operator in reversed(self.operators.items()):
            for source, axes in zip(operator.inputs, operator.axes, strict=True):
                asked = axes[axis].back(spans[node], *(bounds[source] if bounds else ENDLESS))
                known = spans.get(source)
                if known is None or asked.lo < known.lo:
                    low[source] = node
                if known is None or asked.hi > known.hi:
                    high[source] = node
                spans[source] = asked if known is None else known.union(asked)
        return Walk(spans, low, high)

    def used_once(self) -> set[fx.Node]:
        """The values whose memory one operator alone reads, itself or through a view: it may overwrite them."""
        owner: dict[fx.Node, fx.Node] = {}
        readers: dict[fx.Node, int] = {}
        for node, operator in self.operators.items():
            is_view = operator.kind in ("identity", "item", "crop", "border") or operator.name in VIEWS
            owner[node] = owner[operator.inputs[0]] if is_view and operator.inputs else node
            if not is_view:
                for source in operator.inputs:
                    readers[owner[source]] = readers.get(owner[source], 0) + 1
        readers[owner[self.output]] = readers.get(owner[self.output], 0) + 1
        return {n for n in self.operators if readers.get(owner[n]) == 1 and self.operators[owner[n]].kind != "input"}

    def expect_bounded(self) -> None:
        """Raise `FootprintError` where a layer has no finite bounds."""
        named = "; ".join(f"{op.layer}: {op.problem}" for op in self.operators.values() if op.problem)
        if named:
            raise FootprintError(
                f"the network has no finite footprint ({named}): no halo makes its tiles exact; run it with an "
                "approximate halo, which measures the seam error"
            )

    @staticmethod
    def _length(node: fx.Node, axis: int) -> int:
        return node.meta["shape"][2 + axis]


def inferred(module: nn.Module, bands: int) -> Network:
    """Record `module` at two extents and keep what the two agree on; raises `FootprintError`."""
    first = _recorded(module, bands, (_TRACED_PX, _TRACED_PX))
    network = _well_formed(module, bands, first)
    lengths = tuple(network.input.meta["shape"][2:])
    other = _recorded(module, bands, (lengths[0] + network.stride[0], lengths[1] + 2 * network.stride[1]), batch=2)
    return _agreed(network, other)


def _recorded(module: nn.Module, bands: int, extent_yx: tuple[int, int], batch: int = 1) -> Network:
    graph = record(module, bands, extent_yx, batch)
    operators = describe(graph)
    output = graph.output_node().args[0]
    assert isinstance(output, fx.Node)
    if operators[output].dims != "NCYX":
        named = "; ".join(f"{op.layer}: {op.problem}" for op in operators.values() if op.problem)
        raise FootprintError(
            f"the network's output is not (batch, class, y, x) pixels that can be followed to its input "
            f"({named or 'dimensions ' + operators[output].dims}): no tile of it can be placed; return logits_NCHW"
        )
    live = _live(operators, output)
    places: dict[fx.Node, tuple[Place, Place]] = {}
    for node, operator in live.items():
        places[node] = (_place(operator, places, 0), _place(operator, places, 1))
    stride = (_common_step(places, 0), _common_step(places, 1))
    return Network(live, output, places, stride)


def _live(operators: Described, output: fx.Node) -> Described:
    """Values that the output depends on, the input first; unbounded layers count where what passes isn't pixels."""
    wanted = {output} | {node for node, op in operators.items() if op.problem and _reaches(node, output)}
    for node, operator in reversed(operators.items()):
        if node in wanted:
            wanted.update(operator.inputs)
    return {node: op for node, op in operators.items() if node in wanted or op.kind == "input"}


def _reaches(node: fx.Node, output: fx.Node) -> bool:
    seen: set[fx.Node] = set()
    front = [node]
    while front:
        at = front.pop()
        if at is output:
            return True
        front.extend(user for user in at.users if user not in seen)
        seen.update(at.users)
    return False


def _place(operator: Operator, places: Mapping[fx.Node, tuple[Place, Place]], axis: int) -> Place:
    if not operator.inputs:
        return Place(Fraction(1), Fraction(0))
    source, axis_map = places[operator.inputs[0]][axis], operator.axes[0][axis]
    return Place(source.step * axis_map.step, source.shift + source.step * axis_map.shift)


def _common_step(places: Mapping[fx.Node, tuple[Place, Place]], axis: int) -> int:
    """The shortest shift of the input that shifts every value by whole pixels."""
    steps = [place[axis].step for place in places.values()]
    return math.lcm(*(step.numerator for step in steps)) // math.gcd(*(step.denominator for step in steps), 1)


def _well_formed(module: nn.Module, bands: int, first: Network) -> Network:
    """Recorded on the stride grid; a network that pads nothing at an extent at which no pooling drops pixels.

    Such networks are made for those extents alone: 572 px for the original U-Net, not 576.
    """
    base = [-(-_TRACED_PX // stride) * stride for stride in first.stride]
    best = first if base == [_TRACED_PX, _TRACED_PX] else _recorded(module, bands, (base[0], base[1]))
    if not any(best.loses_context(axis) for axis in (0, 1)):
        return best
    for rest in range(1, max(first.stride)):
        if not _dropped(best):
            break
        extent = (base[0] + rest % first.stride[0], base[1] + rest % first.stride[1])
        try:
            best = min(best, _recorded(module, bands, extent), key=_dropped)
        except FootprintError:
            continue  # an extent that the network can't take is not the one it is made for
    return best


def _dropped(network: Network) -> int:
    """Pixels at the far edges that no output sees although the stride would not skip them."""
    dropped = 0
    for node, operator in network.operators.items():
        for source, axes in zip(operator.inputs, operator.axes, strict=True):
            for axis, window in enumerate(axes):
                if isinstance(window, Window):
                    seen = window.taps(Span(0, node.meta["shape"][2 + axis])).hi
                    skipped = max(0, window.stride - window.reach) + max(0, -window.after)
                    dropped += max(0, source.meta["shape"][2 + axis] - seen - skipped)
    return dropped


def _agreed(one: Network, other: Network) -> Network:
    """Settings that follow the image's extent, such as a fixed output size, have no bounds."""
    if len(one.operators) != len(other.operators):
        raise FootprintError(
            "the network takes other steps at another extent of the image: its footprint is not one for all "
            "tiles; make its layers independent of the extent"
        )
    operators: Described = {}
    for (node, mine), theirs in zip(one.operators.items(), other.operators.values(), strict=True):
        same = mine == theirs and (mine.kind != "pointwise" or _settings(mine) == _settings(theirs))
        why = mine.problem or theirs.problem or f"its {mine.name} depends on the extent of the image"
        operators[node] = mine if same and not mine.problem else replace(mine, problem=why)
    return replace(one, operators=operators)


def _settings(operator: Operator) -> list[Any]:
    """The arguments that are not values of the graph."""
    found: list[Any] = []
    map_aggregate(
        (operator.args.get("call", operator.node.args), operator.node.kwargs), lambda arg: found.append(_plain(arg))
    )
    return found


def _plain(arg: object) -> object:
    return None if isinstance(arg, fx.Node) else repr(arg)
