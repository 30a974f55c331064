"""ONNX operations that compute each pixel from the same pixel: activations, norms, arithmetic, sums over channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unet_core.bundles.onnx.call import Call
from unet_core.bundles.onnx.values import Pixels

_SIXTH = 1 / 6
_SELU = (1.67326319217681884765625, 1.05070102214813232421875)

PLAIN = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish", "Mish": "mish",
    "Softplus": "softplus", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "abs", "Neg": "neg", "Floor": "floor",
    "Ceil": "ceil", "Round": "round", "Erf": "erf", "Sign": "sign", "Reciprocal": "reciprocal", "Sin": "sin",
    "Cos": "cos",
}  # fmt: skip
"""Operations of one tensor without settings, by torch's name."""

ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
REDUCTIONS = {
    "ReduceMean": "mean.dim", "ReduceSum": "sum.dim_IntList", "ReduceMax": "amax.default", "ReduceMin": "amin.default",
}  # fmt: skip


def plain(call: Call) -> Pixels:
    return call.writer.call(f"{PLAIN[call.op]}.default", call.pixels())


def arithmetic(call: Call) -> Pixels:
    """Sums and the like of pixels and pixels, or of pixels and numbers, in either order."""
    one, other = call.inputs
    name = ARITHMETIC[call.op]
    if isinstance(one, Pixels) and not isinstance(other, Pixels):
        number = call.scalar(1)
        return call.writer.call(f"{name}.Tensor", one, other) if number is None else _scalar(call, one, number)
    if not isinstance(one, Pixels) and name in ("add", "mul"):
        number = call.scalar(0)
        pixels = call.pixels(1)
        return call.writer.call(f"{name}.Tensor", pixels, one) if number is None else _scalar(call, pixels, number)
    return call.writer.call(f"{name}.Tensor", one, other)


def _scalar(call: Call, pixels: Pixels, number: float) -> Pixels:
    return call.writer.call(f"{ARITHMETIC[call.op]}.Scalar", pixels, number)


def extremes(call: Call) -> Pixels:
    """Max, Min and Sum of any number of tensors."""
    word = {"Max": "maximum.default", "Min": "minimum.default", "Sum": "add.Tensor"}[call.op]
    values = sorted(call.inputs, key=lambda value: not isinstance(value, Pixels))
    result = values[0]
    for value in values[1:]:
        result = call.writer.call(word, result, value)
    if not isinstance(result, Pixels):
        raise call.refusal("it takes no pixels")
    return result


def power(call: Call) -> Pixels:
    exponent = call.scalar(1)
    if exponent is None:
        raise call.refusal("its exponent is no number")
    return call.writer.call("pow.Tensor_Scalar", call.pixels(), exponent)


def clip(call: Call) -> Pixels:
    low = call.scalar(1) if call.opset >= 11 else call.attributes.get("min")
    high = call.scalar(2) if call.opset >= 11 else call.attributes.get("max")
    if low is None and high is None:
        return call.pixels()
    return call.writer.call("clamp.default", call.pixels(), low, high)


def with_alpha(op: str, default: float) -> Callable[[Call], Pixels]:
    return lambda call: call.writer.call(op, call.pixels(), _float(call, "alpha", default))


def selu(call: Call) -> Pixels:
    given = (_float(call, "alpha", _SELU[0]), _float(call, "gamma", _SELU[1]))
    if not np.allclose(given, _SELU, rtol=1e-6):
        raise call.refusal(f"its constants are {given}, not those of its paper")
    return call.writer.call("selu.default", call.pixels())


def hard_sigmoid(call: Call) -> Pixels:
    alpha, beta = _float(call, "alpha", 0.2), _float(call, "beta", 0.5)
    if math.isclose(alpha, _SIXTH, rel_tol=1e-6) and beta == 0.5:
        return call.writer.call("hardsigmoid.default", call.pixels())
    line = call.writer.call("add.Scalar", call.writer.call("mul.Scalar", call.pixels(), alpha), beta)
    return call.writer.call("clamp.default", line, 0.0, 1.0)


def gelu(call: Call) -> Pixels:
    return call.writer.call("gelu.default", call.pixels(), approximate=call.text("approximate", "none"))


def prelu(call: Call) -> Pixels:
    slope = call.needed(1)
    if slope.size not in (1, *slope.shape[-3:-2]) or slope.ndim > 4:
        raise call.refusal(f"its slopes are {slope.shape}, not one per channel")
    return call.writer.call("prelu.default", call.pixels(), slope.reshape(-1))


def batch_norm(call: Call) -> Pixels:
    if call.number("training_mode", 0) or call.outputs > 1:
        raise call.refusal("it follows the tile", "call model.eval() before the export")
    scale, shift, mean, variance = (call.needed(index) for index in (1, 2, 3, 4))
    epsilon = _float(call, "epsilon", 1e-5)
    statistics = (mean, variance, False, 0.1, epsilon, False)
    return call.writer.call("batch_norm.default", call.pixels(), scale, shift, *statistics)


def instance_norm(call: Call) -> Pixels:
    epsilon, scale, shift = _float(call, "epsilon", 1e-5), call.needed(1), call.needed(2)
    return call.writer.call("instance_norm.default", call.pixels(), scale, shift, None, None, True, 0.1, epsilon, False)


def layer_norm(call: Call) -> Pixels:
    scale, epsilon = call.needed(1), _float(call, "epsilon", 1e-5)
    if call.number("axis", -1) not in (-1, 3) or scale.ndim != 1:
        raise call.refusal("it does not run over channels, the last of (batch, y, x, band)")
    return call.writer.call("layer_norm.default", call.pixels(), [scale.size], scale, call.array(2), epsilon)


def group_norm(call: Call) -> Pixels:
    if call.opset < 21:
        raise call.refusal("it scales by group, as torch never does", "export with opset_version=21 or newer")
    groups, epsilon = call.number("num_groups", 1), _float(call, "epsilon", 1e-5)
    return call.writer.call("group_norm.default", call.pixels(), groups, call.needed(1), call.needed(2), epsilon)


def softmax(call: Call) -> Pixels:
    axis = call.number("axis", -1 if call.opset >= 13 else 1)
    if call.opset < 13 and axis not in (3, -1):
        raise call.refusal("before opset 13 it runs over bands and pixels together", "export with opset_version=13")
    word = "log_softmax.int" if call.op == "LogSoftmax" else "softmax.int"
    return call.writer.call(word, call.pixels(), axis)


def reduced(call: Call) -> Pixels:
    axes, keeps = call.items(1, "axes"), bool(call.number("keepdims", 1))
    if axes is None:
        raise call.refusal("it runs over everything")
    return call.writer.call(REDUCTIONS[call.op], call.pixels(), axes, keeps)


def matrix(call: Call) -> Pixels:
    weight = call.needed(1)
    if weight.ndim != 2:
        raise call.refusal(f"its matrix is {weight.shape}")
    return call.writer.call("linear.default", call.pixels(), np.ascontiguousarray(weight.T))


def concatenated(call: Call) -> Pixels:
    return call.writer.call("cat.default", list(call.inputs), call.number("axis", 1))


def split(call: Call) -> list[Any]:
    sizes, axis = call.items(1, "split"), call.number("axis", 0)
    if sizes is None:
        shape = call.shapes[0]
        whole = shape[axis] if shape is not None else None
        if whole is None or whole % call.outputs:
            raise call.refusal("the sizes of its parts are not given")
        sizes = [whole // call.outputs] * call.outputs
    several = call.writer.call("split_with_sizes.default", call.pixels(), sizes, axis)
    return [call.writer.item(several, index) for index in range(call.outputs)]


def transposed(call: Call) -> Pixels:
    """A transposition, or what an earlier one was made of where this undoes it."""
    pixels = call.pixels()
    order: tuple[int, ...] = tuple(call.attributes.get("perm") or ())
    if not order:
        raise call.refusal("its order is missing")
    if pixels.source is not None and tuple(pixels.order[at] for at in order) == tuple(range(len(order))):
        return pixels.source
    made = call.writer.call("permute.default", pixels, list(order))
    return Pixels(made.name, pixels, order)


def squeezed(call: Call) -> Pixels:
    axes = call.items(1, "axes")
    if axes is None or len(axes) != 1:
        raise call.refusal("it drops or adds more than one dimension")
    return call.writer.call("squeeze.dim" if call.op == "Squeeze" else "unsqueeze.default", call.pixels(), axes[0])


def reshaped(call: Call) -> Pixels:
    shape = call.needed(1).reshape(-1).tolist()
    keeps = not call.number("allowzero", 0)
    sizes = [call.writer.size(call.pixels(), at) if keeps and size == 0 else size for at, size in enumerate(shape)]
    return call.writer.call("reshape.default", call.pixels(), sizes)


def expanded(call: Call) -> Pixels:
    return call.writer.call("expand.default", call.pixels(), call.needed(1).reshape(-1).tolist())


def picked(call: Call) -> Pixels:
    index = call.scalar(1)
    if index is None or call.needed(1).ndim:
        raise call.refusal("it picks several places")
    return call.writer.call("select.int", call.pixels(), call.number("axis", 0), int(index))


def unchanged(call: Call) -> Pixels:
    return call.pixels()


_FLOATS = (1, 11)


def cast(call: Call) -> Pixels:
    if call.number("to", 1) not in _FLOATS:
        raise call.refusal("it makes other numbers than float32 of pixels", "export the network in float32")
    return call.pixels()


def _float(call: Call, name: str, default: float) -> float:
    """An attribute as the float32 that the file holds, in its shortest decimal form: 0.01, not 0.009999999776."""
    return float(str(np.float32(call.number(name, default))))
