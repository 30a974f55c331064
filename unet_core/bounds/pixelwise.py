"""Rules of the calls that compute each pixel from the same pixel: activations, norms, sums over channels."""

from __future__ import annotations

from typing import Any

from torch import fx

from unet_core.bounds.operators import Operator
from unet_core.bounds.rule_context import NAMES, Call, RefusalError


def pointwise(call: Call, _args: dict[str, Any]) -> Operator:
    for other in call.node.all_input_nodes:
        shape: tuple[int, ...] = other.meta["shape"]
        if other in call.spatial:
            if call.known[other].dims != call.dims or call.extents(other) != call.extents(call.node):
                raise RefusalError("it combines values of different extents")
        elif len(shape) > len(call.dims):
            raise RefusalError("it adds dimensions")
        else:
            seen = call.dims[len(call.dims) - len(shape) :]
            if any(size != 1 for axis, size in zip(seen, shape, strict=True) if axis in "YX"):
                raise RefusalError("it combines pixels with a tensor that differs from place to place")
    return call.make("pointwise")


def identity(call: Call, _args: dict[str, Any]) -> Operator:
    return call.make("identity")


def dropout(call: Call, args: dict[str, Any]) -> Operator:
    if args["training"]:
        raise RefusalError("it drops values at random even in evaluation mode")
    return call.make("identity")


def batch_norm(call: Call, args: dict[str, Any]) -> Operator:
    if args["training"]:
        raise RefusalError("it normalises by the statistics of the whole tile (no running statistics)")
    return call.make("pointwise")


def instance_norm(call: Call, args: dict[str, Any]) -> Operator:
    if args["use_input_stats"]:
        raise RefusalError("it normalises by the mean and variance over the whole image")
    return call.make("pointwise")


def along(call: Call, args: dict[str, Any]) -> Operator:
    """Softmax, mean, argmax, cat and their like: pointwise when they run over channels."""
    dim = args["dim"]
    if isinstance(dim, fx.Node):
        return pointwise(call, args)  # the larger of two tensors
    dims = [dim] if isinstance(dim, int) else list(dim or range(len(call.dims)))
    axes = {call.axis(d) for d in dims}
    if axes - {"C"}:
        raise RefusalError(f"{call.name} runs over {NAMES[max(axes)]}")
    shape = call.node.meta["shape"]
    return call.make("pointwise", dims=call.dims.replace("C", "") if len(shape) < len(call.dims) else None)


def cat(call: Call, args: dict[str, Any]) -> Operator:
    if call.axis(args["dim"]) != "C":
        raise RefusalError(f"it concatenates over {NAMES[call.axis(args['dim'])]}")
    if any(arg not in call.spatial for arg in call.node.all_input_nodes):
        raise RefusalError("it concatenates pixels with a tensor that is the same at every tile")
    return call.make("pointwise")


def channels_last(call: Call, args: dict[str, Any]) -> Operator:
    """Linear and layer norm: over the last dimensions, which must be the channels alone."""
    count = len(args.get("normalized_shape") or (1,))
    if call.dims[-count:] != "C":
        raise RefusalError(f"{call.name} runs over {call.dims[-count:]}, not over channels alone")
    return call.make("pointwise", args=args)


def permute(call: Call, args: dict[str, Any]) -> Operator:
    return call.make("pointwise", dims="".join(call.dims[d] for d in args["dims"]))


def transpose(call: Call, args: dict[str, Any]) -> Operator:
    order = list(call.dims)
    a, b = args["dim0"], args["dim1"]
    order[a], order[b] = order[b], order[a]
    return call.make("pointwise", dims="".join(order))


def repeat(call: Call, args: dict[str, Any]) -> Operator:
    repeats = args["repeats"]
    if len(repeats) != len(call.dims) or any(n != 1 for n, axis in zip(repeats, call.dims, strict=True) if axis != "C"):
        raise RefusalError("it repeats pixels")
    return call.make("pointwise")


def expand(call: Call, args: dict[str, Any]) -> Operator:
    """Repeats channels; the other sizes are those of the tile, whatever they are."""
    if len(args["sizes"]) != len(call.dims) or call.extents(call.spatial[0]) != call.extents(call.node):
        raise RefusalError("it repeats pixels")
    sizes = [n if axis == "C" else -1 for n, axis in zip(args["sizes"], call.dims, strict=True)]
    return call.make("pointwise", args={"call": (call.node.args[0], *sizes)})


def unsqueeze(call: Call, args: dict[str, Any]) -> Operator:
    at = args["dim"] % (len(call.dims) + 1)
    dims = f"{call.dims[:at]}C{call.dims[at:]}"
    if "C" in call.dims:
        raise RefusalError("it adds dimensions")
    return call.make("pointwise", dims=dims)


def squeeze(call: Call, args: dict[str, Any]) -> Operator:
    if not isinstance(args["dim"], int) or call.axis(args["dim"]) != "C":
        raise RefusalError("it drops a dimension that is not the channels")
    return call.make("pointwise", dims=call.dims.replace("C", ""))


def per_channel(call: Call, _args: dict[str, Any]) -> Operator:
    return call.make("pointwise")


def item(call: Call, _args: dict[str, Any]) -> Operator:
    return call.make("item")
