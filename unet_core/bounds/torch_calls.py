"""The torch calls that bounds inference knows, under one name each, with their arguments by name.

A function, a tensor method and an ATen operator of the same meaning ("relu_", "Tensor.relu",
"aten.relu.default") share a name, so that a module, a folded graph and an exported program read alike.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import fx

_OVERLOAD = type(torch.ops.aten.relu.default)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


POINTWISE = _words(
    """
    relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh softplus softsign
    sigmoid tanh logsigmoid log_sigmoid threshold tanhshrink softshrink hardshrink rrelu
    add sub rsub mul div true_divide neg pow rpow square sqrt rsqrt exp expm1 log log1p log2 abs sign reciprocal
    clamp clamp_min clamp_max clip maximum minimum where round floor ceil erf sin cos addcmul addcdiv lerp
    gt lt ge le eq ne logical_and logical_or logical_not float half bfloat16 double to type type_as
    zeros_like ones_like full_like nan_to_num isnan masked_fill channel_shuffle native_channel_shuffle
    positive expand_as
    """
)
ALONG = _words(
    """
    softmax log_softmax glu mean sum amax amin max min argmax argmin var std norm cumsum logsumexp normalize
    chunk split tensor_split softmin prod any all
    """
)
GLOBAL = {
    "group_norm": "it normalises by the mean and variance over the whole image",
    "native_group_norm": "it normalises by the mean and variance over the whole image",
    "scaled_dot_product_attention": "attention lets every pixel see every other",
    "multi_head_attention_forward": "attention lets every pixel see every other",
    "view": "it rearranges pixels by their order in memory",
    "reshape": "it rearranges pixels by their order in memory",
    "flatten": "it rearranges pixels by their order in memory",
    "unfold": "it rearranges pixels by their order in memory",
    "roll": "it joins opposite edges of the image",
    "flip": "it joins opposite edges of the image",
    "grid_sample": "it picks pixels at places that it computes",
}
VIEWS = frozenset(
    (
        "expand",
        "expand_as",
        "unsqueeze",
        "squeeze",
        "permute",
        "transpose",
        "chunk",
        "split",
        "tensor_split",
        "type",
        "to",
        "float",
        "half",
        "type_as",
    )
)
_SAME_MEANING = {
    "__getitem__": "getitem",
    "slice": "getitem",
    "select": "getitem",
    "narrow": "getitem",
    "upsample_nearest2d": "interpolate",
    "_upsample_nearest_exact2d": "interpolate",
    "upsample_bilinear2d": "interpolate",
    "upsample_bicubic2d": "interpolate",
    "upsample": "interpolate",
    "constant_pad_nd": "pad",
    "reflection_pad2d": "pad",
    "replication_pad2d": "pad",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "multiply": "mul",
    "subtract": "sub",
    "divide": "div",
    "absolute": "abs",
    "swapaxes": "transpose",
    "_to_copy": "to",
    "split_with_sizes": "split",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
}
# "name=default"; a name alone is required. The order is torch's own.
_SIGNATURES = {
    "conv2d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv_transpose2d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "convolution": "input weight bias stride padding dilation transposed output_padding groups",
    "max_pool2d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "avg_pool2d": "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True "
    "divisor_override=None",
    "max_unpool2d": "input indices kernel_size stride=None padding=0 output_size=None",
    "interpolate": "input size=None scale_factor=None mode='nearest' align_corners=None "
    "recompute_scale_factor=None antialias=False",
    "pixel_shuffle": "input factor",
    "pixel_unshuffle": "input factor",
    "pad": "input pad mode='constant' value=None",
    "getitem": "input index",
    "batch_norm": "input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-5",
    "instance_norm": "input running_mean=None running_var=None weight=None bias=None use_input_stats=True "
    "momentum=0.1 eps=1e-5",
    "layer_norm": "input normalized_shape weight=None bias=None eps=1e-5",
    "linear": "input weight bias=None",
    "dropout": "input p=0.5 training=True inplace=False",
    "softmax": "input dim",
    "glu": "input dim=-1",
    "cat": "tensors dim=0",
    "chunk": "input chunks dim=0",
    "split": "input sizes dim=0",
    "norm": "input p='fro' dim=None",
    "normalize": "input p=2 dim=1",
    "along": "input dim=None",
    "transpose": "input dim0 dim1",
    "unsqueeze": "input dim",
    "squeeze": "input dim=None",
}
_SHARED = {
    **dict.fromkeys(("dropout2d", "alpha_dropout", "feature_dropout"), "dropout"),
    **dict.fromkeys(("log_softmax", "softmin"), "softmax"),
    **dict.fromkeys(("concat", "concatenate"), "cat"),
    "max_pool2d_with_indices": "max_pool2d",
    "tensor_split": "chunk",
}
# ATen takes its arguments in another order than torch.nn.functional; the flag decides whose statistics count.
_ATEN_NORMS = {"batch_norm": "training", "instance_norm": "use_input_stats"}
_UPSAMPLE_MODES = {
    "upsample_nearest2d": "nearest",
    "_upsample_nearest_exact2d": "nearest-exact",
    "upsample_bilinear2d": "bilinear",
    "upsample_bicubic2d": "bicubic",
}
_PAD_MODES = {"reflection_pad2d": "reflect", "replication_pad2d": "replicate"}


def bare_name(node: fx.Node) -> str:
    """The torch name of what `node` calls: "relu_" for all forms of it."""
    target = node.target
    if isinstance(target, str):
        return target
    if isinstance(target, _OVERLOAD):
        return target.name().split("::")[-1].split(".")[0]
    return str(getattr(target, "__name__", target))


def name_of(node: fx.Node) -> str:
    """The one name of what `node` calls, in place or not."""
    name = bare_name(node)
    if name in _SAME_MEANING:
        return _SAME_MEANING[name]
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        name = {"truediv": "div", "rtruediv": "reciprocal", "rmul": "mul", "radd": "add"}.get(name, name)
        return name[1:] if name in ("iadd", "isub", "imul", "idiv") else name
    name = name if name == "_item" else name.rstrip("_")
    return _SAME_MEANING.get(name, name)


def is_in_place(node: fx.Node) -> bool:
    name = bare_name(node)
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def out_of_place(node: fx.Node) -> Any:
    """The target that does what the in-place target of `node` does and returns a new tensor."""
    target, name = node.target, bare_name(node)
    plain = f"__{name[3:]}" if name.startswith("__i") else name.removesuffix("_")
    if isinstance(target, str):
        return plain
    if isinstance(target, _OVERLOAD):
        return getattr(getattr(torch.ops.aten, plain), str(target).rpartition(".")[2])
    return getattr(torch, plain)


def bind(node: fx.Node) -> dict[str, Any]:
    """The arguments of `node` by name, defaults filled in."""
    name, bare = name_of(node), bare_name(node)
    args, kwargs = cast("tuple[Any, ...]", node.args), dict(node.kwargs)
    if name == "permute":
        return {"input": args[0], "dims": args[1] if len(args) == 2 else args[1:]}
    if name in ("repeat", "expand"):
        key = "repeats" if name == "repeat" else "sizes"
        return {"input": args[0], key: args[1] if isinstance(args[1], (tuple, list)) else args[1:]}
    if name == "getitem" and bare in ("slice", "select", "narrow"):
        return {"input": args[0], "index": _index_along(bare, args[1:])}
    if bare in _UPSAMPLE_MODES:
        align = bool(args[2]) if "linear" in bare or "cubic" in bare else None
        given = {"input": args[0], "mode": _UPSAMPLE_MODES[bare], "align_corners": align}
        if str(node.target).endswith(".vec"):
            given["scale_factor"] = args[-1] if len(args) > 2 else None
        return _filled("interpolate", (), given)
    if bare in _PAD_MODES:
        return {"input": args[0], "pad": args[1], "mode": _PAD_MODES[bare], "value": None}
    if bare == "constant_pad_nd":
        return _filled("pad", args[:2], {"mode": "constant", "value": args[2] if len(args) > 2 else 0})
    if bare in _ATEN_NORMS and isinstance(node.target, _OVERLOAD):
        order = ("input", "weight", "bias", "running_mean", "running_var", _ATEN_NORMS[bare], "momentum", "eps")
        return dict(zip(order, args, strict=False))
    if bare.startswith("dropout") and len(args) == 3 and isinstance(node.target, _OVERLOAD):
        return {"input": args[0], "p": args[1], "training": args[2]}
    key = _SHARED.get(name, name)
    return _filled(key if key in _SIGNATURES else "along", args, kwargs)


def pair(value: Any) -> tuple[int, int]:
    """(y, x) of an argument that torch takes as one number or two."""
    if isinstance(value, int):
        return value, value
    items = tuple(int(item) for item in value)
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def index_of(index: Any, dimensions: int) -> tuple[Any, ...]:
    """`index` with one entry per dimension."""
    items = list(index) if isinstance(index, (tuple, list)) else [index]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (dimensions - len(items) + 1)
    return (*items, *[slice(None)] * (dimensions - len(items)))


def _index_along(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    dim, start, end, step = (*args, None, None, None)[:4]
    entry = {
        "select": start,
        "narrow": slice(start, (start or 0) + (end or 0)),
        "slice": slice(start, end, step),
    }[name]
    return (*[slice(None)] * int(dim or 0), entry)


def _filled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound: dict[str, Any] = {}
    for place, entry in enumerate(_SIGNATURES[name].split()):
        key, _, default = entry.partition("=")
        bound[key] = args[place] if place < len(args) else kwargs.get(key, _DEFAULTS.get(default))
    return bound


_DEFAULTS: dict[str, Any] = {
    "0": 0, "1": 1, "2": 2, "-1": -1, "0.1": 0.1, "0.5": 0.5, "1e-5": 1e-5, "True": True, "False": False,
    "None": None, "'nearest'": "nearest", "'constant'": "constant", "'fro'": "fro",
}  # fmt: skip
