"""Rules: the table of which rule makes an operator of which call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from unet_core.bounds import pixelwise, spatial, torch_calls
from unet_core.bounds.operators import Described, Operator
from unet_core.bounds.rule_context import Call, RefusalError


def describe(graph: fx.Graph) -> Described:
    """Classify every call of a recorded graph that carries pixels, in order."""
    known: Described = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = Operator(node, "input", "input")
        elif node.op != "output" and not node.meta["constant"]:
            known[node] = _operator(Call(node, known))
    return known


def _operator(call: Call) -> Operator:
    if not call.spatial:
        return call.adopted()
    try:
        if call.name in torch_calls.GLOBAL:
            raise RefusalError(torch_calls.GLOBAL[call.name])
        rule = RULES.get(call.name)
        if rule is None:
            raise RefusalError(f"{call.name} is not an operation whose bounds are known")
        return rule(call, torch_calls.bind(call.node))
    except RefusalError as refusal:
        return call.unbounded(str(refusal))


RULES: dict[str, Callable[[Call, dict[str, Any]], Operator]] = {
    **dict.fromkeys(torch_calls.POINTWISE, pixelwise.pointwise),
    **dict.fromkeys(torch_calls.ALONG, pixelwise.along),
    **dict.fromkeys(("dropout", "dropout2d", "alpha_dropout", "feature_dropout"), pixelwise.dropout),
    **dict.fromkeys(("contiguous", "detach", "clone", "alias"), pixelwise.identity),
    **dict.fromkeys(("cat", "concat", "concatenate"), pixelwise.cat),
    **dict.fromkeys(("layer_norm", "linear"), pixelwise.channels_last),
    "batch_norm": pixelwise.batch_norm,
    "instance_norm": pixelwise.instance_norm,
    "permute": pixelwise.permute,
    "transpose": pixelwise.transpose,
    "repeat": pixelwise.repeat,
    "expand": pixelwise.expand,
    "unsqueeze": pixelwise.unsqueeze,
    "squeeze": pixelwise.squeeze,
    "prelu": pixelwise.per_channel,
    "_native_batch_norm_legit_no_training": pixelwise.per_channel,
    "convolution": spatial.convolution,
    "_item": pixelwise.item,
    "conv2d": spatial.conv,
    "conv_transpose2d": spatial.conv_transpose,
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"), spatial.pool),
    "max_unpool2d": spatial.unpool,
    "interpolate": spatial.interpolate,
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), spatial.shuffle),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), spatial.adaptive),
    "pad": spatial.pad,
    "getitem": spatial.getitem,
}
