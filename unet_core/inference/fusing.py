"""The same network in fewer passes over memory, with the same numbers.

Batch norm goes into the convolution before it. ReLU is applied by the convolution as it writes (oneDNN's
post-operations on a CPU, cuDNN's on a GPU). On a CPU 2×2 max pooling is two maxima of neighbours, which skips
the indices that torch's pooling computes in any case.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from unet_core.bounds.torch_calls import bind, name_of

logger = logging.getLogger(__name__)

_ONE_AT_A_TIME = threading.Lock()
"""Torch replaces what all modules are called by while it traces one, and puts back what it found."""

_RELUS: tuple[Any, ...] = (functional.relu, torch.relu, torch.relu_, "relu", "relu_")


def fold(module: nn.Module) -> nn.Module:
    """A copy of the network, in evaluation mode, with every batch norm folded into the convolution before it.

    Layers that are called more than once, or whose output is used twice, keep their batch norm, and so does a
    network that `torch.fx` can't trace.
    """
    module = copy.deepcopy(module).eval()
    if isinstance(module, fx.GraphModule) and not any(node.op == "call_module" for node in module.graph.nodes):
        return fold_calls(module)
    try:
        traced = _traced(module)
    except (TraceError, TypeError, RuntimeError) as error:
        logger.info("batch norm stays: the network can't be traced (%s)", error)
        return module
    parts = dict(traced.named_modules())
    calls = Counter(parts[str(node.target)] for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = parts[str(before.target)], parts[str(node.target)]
        if calls[conv] == calls[norm] == 1 and _folds(conv, norm):
            transposed = isinstance(conv, nn.ConvTranspose2d)
            _replace(traced, str(before.target), fuse_conv_bn_eval(cast("Any", conv), cast("Any", norm), transposed))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


class _Tracer(fx.Tracer):
    """Tracer that leaves calls of other threads alone: while it traces, torch hands it those of all modules."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _traced(module: nn.Module) -> fx.GraphModule:
    """The network as a graph of its layers; raises what `torch.fx.symbolic_trace` raises."""
    with _ONE_AT_A_TIME:
        tracer = _Tracer()
        graph = tracer.trace(module)
    return fx.GraphModule(tracer.root, graph, type(module).__name__)


def fold_calls(module: fx.GraphModule) -> fx.GraphModule:
    """The same in place for a graph of calls, as an exported program is; weights that are used twice stay."""
    for norm in list(module.graph.nodes):
        if norm.op != "call_function" or name_of(norm) != "batch_norm":
            continue
        given = bind(norm)
        conv = given["input"]
        if not _is_lone_call(conv) or given["training"] or given["running_var"] is None:
            continue
        transposed = name_of(conv) == "conv_transpose2d"
        weight, bias, groups = (bind(conv)[key] for key in ("weight", "bias", "groups"))
        if transposed and groups != 1:
            continue
        sources = [weight, bias, *(given[key] for key in ("running_mean", "running_var", "weight", "bias"))]
        if any(source is not None and source.op != "get_attr" for source in sources):
            continue
        w, b, mean, var, gain, shift = (_tensor(module, source) for source in sources)
        folded = fuse_conv_bn_weights(w, b, mean, var, given["eps"], gain, shift, transposed)  # type: ignore[arg-type]
        names = [f"folded_{norm.name}_{part}" for part in ("weight", "bias")]
        with module.graph.inserting_before(conv):
            nodes: list[fx.Node] = []
            for name, tensor in zip(names, folded, strict=True):
                module.register_parameter(name, nn.Parameter(tensor.detach(), requires_grad=False))
                nodes.append(module.graph.get_attr(name))
        conv.args = (conv.args[0], *nodes, *conv.args[3:])
        norm.replace_all_uses_with(conv)
        module.graph.erase_node(norm)
    module.graph.eliminate_dead_code(is_impure_node=lambda node: node.op != "get_attr")
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _is_lone_call(node: object) -> TypeGuard[fx.Node]:
    if not isinstance(node, fx.Node) or node.op != "call_function" or node.kwargs or len(node.users) > 1:
        return False
    return name_of(node) in ("conv2d", "conv_transpose2d") and len(node.args) > 1


def _tensor(module: fx.GraphModule, node: fx.Node | None) -> Tensor | None:
    if node is None:
        return None
    parent, _, name = str(node.target).rpartition(".")
    return cast("Tensor", getattr(module.get_submodule(parent), name))


def _folds(conv: nn.Module, norm: nn.Module) -> bool:
    is_conv = type(conv) is nn.Conv2d or (type(conv) is nn.ConvTranspose2d and conv.groups == 1)
    return is_conv and type(norm) is nn.BatchNorm2d and norm.running_var is not None


def _replace(module: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)


def fuse(graph: fx.Graph, device_type: str, dtype: torch.dtype) -> None:
    """Rewrite a minimal graph in place for the library that convolves there; on a CPU to the same bits."""
    join = _join_on_cpu if device_type == "cpu" else _join_on_gpu
    joins = device_type != "cpu" or _onednn_computes(dtype)
    for node in list(graph.nodes):
        if device_type == "cpu" and node.target is functional.max_pool2d and _is_two_by_two(node):
            node.target, node.args, node.kwargs = pool_two_by_two, (node.args[0],), {}
        elif joins and node.target in _RELUS and _is_lone_convolution(node.args[0]):
            conv = cast("fx.Node", node.args[0])
            with graph.inserting_before(node):
                node.replace_all_uses_with(join(graph, conv))
            graph.erase_node(node)
            graph.erase_node(conv)


def _is_lone_convolution(node: object) -> bool:
    return isinstance(node, fx.Node) and node.target is torch.conv2d and len(node.users) == 1


def _join_on_cpu(graph: fx.Graph, conv: fx.Node) -> fx.Node:
    tile, weight, bias, stride, pad, dilation, groups = conv.args
    order = (tile, weight, bias, pad, stride, dilation, groups, "relu", [], "")
    return graph.call_function(torch.ops.mkldnn._convolution_pointwise.default, order)


def _join_on_gpu(graph: fx.Graph, conv: fx.Node) -> fx.Node:
    return graph.call_function(torch.cudnn_convolution_relu, conv.args)


def _onednn_computes(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def _is_two_by_two(pool: fx.Node) -> bool:
    return list(pool.args[1:]) == [(2, 2), (2, 2), (0, 0), (1, 1), False, False] and not pool.kwargs


def pool_two_by_two(tile_NCHW: Tensor) -> Tensor:
    """`max_pool2d(tile, 2)`, not-a-number included."""
    height, width = tile_NCHW.shape[2] // 2 * 2, tile_NCHW.shape[3] // 2 * 2
    wide = torch.maximum(tile_NCHW[:, :, :height, 0:width:2], tile_NCHW[:, :, :height, 1:width:2])
    return torch.maximum(wide[:, :, 0::2], wide[:, :, 1::2])
