"""How much memory a forward pass takes at its peak, known without running it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

_VIEWS = {"getitem", "permute", "view", "reshape", "contiguous", "narrow", "slice", "dropout"}


def activation_bytes(module: nn.Module, bands: int, read_px: tuple[int, int], precision: str) -> int:
    """Peak of the tensors that live at one time in a forward pass over one read, in bytes.

    Walks the traced graph with shapes alone (meta tensors hold none): a tensor lives from the operator that
    makes it to the last one that uses it. Convolutions may take scratch space on top, for which the input of
    the heaviest operator is counted once more.

    Args:
        module: a traceable network in eval mode.
        bands: channels of its input.
        read_px: height and width of the read.
        precision: of the arithmetic: float32, bfloat16 or float16.
    """
    dtype = getattr(torch, precision)
    # A copy: moving the traced graph to meta would take the caller's own weights along.
    copied = copy.deepcopy(module)
    with torch.device("meta"):
        traced = fx.symbolic_trace(copied)
        blank = torch.empty((1, bands, *read_px), dtype=dtype)
    ShapeProp(traced.to("meta", dtype)).propagate(blank)
    sizes = {node: 0 if _is_view(node) else _bytes(node, dtype) for node in traced.graph.nodes}
    last_use: dict[fx.Node, int] = {}
    nodes = list(traced.graph.nodes)
    for position, node in enumerate(nodes):
        for argument in node.all_input_nodes:
            last_use[argument] = position
    live = peak = 0
    for position, node in enumerate(nodes):
        live += sizes[node]
        scratch = max((sizes[argument] for argument in node.all_input_nodes), default=0)
        peak = max(peak, live + scratch)
        live -= sum(sizes[other] for other in {*node.all_input_nodes} if last_use[other] == position)
    return peak


def _is_view(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in _VIEWS


def _bytes(node: fx.Node, dtype: torch.dtype) -> int:
    meta = node.meta.get("tensor_meta")
    shape = getattr(meta, "shape", None)
    if shape is None:
        return 0
    count = 1
    for side in shape:
        count *= int(side)
    return count * Tensor().to(dtype).element_size()
