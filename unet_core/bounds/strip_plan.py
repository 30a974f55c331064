"""Plan of strips: which rows of every value each of them computes, looks at, and keeps for the next.

Integers and the network's operators alone; `unet_core.bounds.strips` writes the graphs of what is planned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import fx

from unet_core.bounds.axis import Span
from unet_core.bounds.builder import Needed, Spans
from unet_core.bounds.network import Network
from unet_core.bounds.operators import Operator

Kept = Mapping[fx.Node, Spans]
"""Rows and columns of what a strip leaves for the next, in order."""
_KEEPABLE = ("pointwise", "window", "spread", "resample", "border")


@dataclass(frozen=True, slots=True)
class StripRows:
    """Rows of all values in one strip.

    new: that it computes. asked: that an operator looks at, by its node and the place of the input. kept: that it
    leaves for the next strip.
    """

    out: Span
    new: Mapping[fx.Node, Span]
    asked: Mapping[tuple[fx.Node, int], Span]
    kept: Mapping[fx.Node, Span]

    def read(self, network: Network) -> Span:
        """Rows of the read; none where all that the strip looks at is kept."""
        return self.new.get(network.input, Span(0, 0))


def planned_rows(network: Network, y: Needed, need: Span, height_px: int) -> list[StripRows]:
    """Rows of all values in each strip of a region's output rows, `need`: what is asked of them, from these backwards.

    Args:
        network: that is computed in strips.
        y: rows of each value that the region needs.
        need: output rows of the region.
        height_px: input rows of a strip, whole strides.
    """
    keeping = _keeping(network, height_px)
    done: dict[fx.Node, int] = {}
    steps: list[tuple[Span, dict[fx.Node, Span], dict[tuple[fx.Node, int], Span], dict[fx.Node, int]]] = []
    for out in _heights(network, y, need, height_px):
        new, asked, wanted = dict[fx.Node, Span](), dict[tuple[fx.Node, int], Span](), {network.output: out}
        for node, operator in reversed(network.operators.items()):
            rows = wanted.get(node)
            if rows is None:
                continue
            if node in keeping:
                rows = Span(done.get(node, rows.lo), rows.hi)
                if rows.lo >= rows.hi:
                    continue  # earlier strips have computed all that is asked
                done[node] = rows.hi
            new[node] = rows
            for place, (source, axes) in enumerate(zip(operator.inputs, operator.axes, strict=True)):
                seen = asked[node, place] = axes[0].back(rows, *y.bounds[source])
                wanted[source] = seen.union(wanted.get(source, seen))
        steps.append((out, new, asked, dict(done)))
    return _with_kept(network, steps, keeping)


def _heights(network: Network, y: Needed, need: Span, height_px: int) -> list[Span]:
    """Output rows of each strip."""
    stride, step = network.stride[0], network.places[network.output][0].step
    halo_px = len(y.spans[network.input]) - int(len(need) * step)
    first_px = max(stride, (height_px - max(0, halo_px)) // stride * stride)
    first, height = int(first_px / step), int(height_px / step)
    cuts = [need.lo, *range(need.lo + first, need.hi, height), need.hi]
    return [Span(lo, hi) for lo, hi in pairwise(cuts)]


def _with_kept(
    network: Network,
    steps: Sequence[tuple[Span, dict[fx.Node, Span], dict[tuple[fx.Node, int], Span], dict[fx.Node, int]]],
    keeping: set[fx.Node],
) -> list[StripRows]:
    """The strips with what each keeps: all that any later one looks at."""
    plan, lowest = list[StripRows](), dict[fx.Node, int]()
    for out, new, asked, done in reversed(steps):
        kept = {node: Span(lo, done[node]) for node, lo in lowest.items() if node in done and lo < done[node]}
        plan.append(StripRows(out, new, asked, {node: kept[node] for node in network.operators if node in kept}))
        for (node, place), span in asked.items():
            source = network.operators[node].inputs[place]
            if source in keeping:
                lowest[source] = min(span.lo, lowest.get(source, span.lo))
    return plan[::-1]


def _keeping(network: Network, height_px: int) -> set[fx.Node]:
    """Values of which a strip far from the region's edges looks at rows that the strip above it has computed."""
    wanted, keeping = dict[fx.Node, Span](), set[fx.Node]()
    wanted[network.output] = Span(0, int(height_px / network.places[network.output][0].step))
    for node, operator in reversed(network.operators.items()):
        rows = wanted[node]
        fresh = int(height_px / network.places[node][0].step)
        if len(rows) > fresh and _is_keepable(operator):
            keeping.add(node)
            rows = Span(rows.hi - fresh, rows.hi)
        for source, axes in zip(operator.inputs, operator.axes, strict=True):
            seen = axes[0].back(rows)
            wanted[source] = seen.union(wanted.get(source, seen))
    return keeping


def _is_keepable(operator: Operator) -> bool:
    """True for one tensor that its operator computes; of what `cat` puts together the inputs are kept, uncopied."""
    return operator.kind in _KEEPABLE and not operator.node.meta.get("many") and operator.name != "cat"


def layout(network: Network, rows: StripRows, before: Kept, start: int) -> object:
    """Key that is the same for strips whose values lie alike, counted from the strip's own place."""
    offset_px = (rows.out.lo - start) * network.places[network.output][0].step

    def at(node: fx.Node, span: Span) -> tuple[int, int]:
        offset = int(offset_px / network.places[node][0].step)
        return span.lo - offset, span.hi - offset

    return (
        tuple((node, at(node, span)) for node, span in rows.new.items()),
        tuple((key, at(network.operators[key[0]].inputs[key[1]], span)) for key, span in rows.asked.items()),
        tuple((node, at(node, span)) for node, span in rows.kept.items()),
        tuple((node, at(node, span), columns) for node, (span, columns) in before.items()),
    )
