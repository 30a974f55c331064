"""ONNX operations on numbers: extents of the tile and what is computed from them, and constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unet_core.bundles.onnx.call import Call, is_plain
from unet_core.bundles.onnx.values import Array, Extent, Pixels, divided, rounded

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda one, other: one + other,
    "Sub": lambda one, other: one - other,
    "Mul": lambda one, other: one * other,
}
_OF_CONSTANTS: dict[str, Callable[..., Any]] = {
    "Sqrt": np.sqrt, "Pow": np.power, "Reciprocal": np.reciprocal, "Exp": np.exp, "Abs": np.abs,
    "Max": np.maximum, "Min": np.minimum, "Equal": np.equal, "Where": np.where, "Greater": np.greater, "Less": np.less,
    "Not": np.logical_not,
}  # fmt: skip
_ROUNDED = {"Floor": "math.floor", "Ceil": "math.ceil"}
_WHOLE, _FLOATS = (6, 7), (1, 11)


def shape_of(call: Call) -> Array:
    """Extents of the tile, or the shape of a constant."""
    value = call.inputs[0]
    if isinstance(value, Pixels):
        rank = 4 if call.shapes[0] is None else len(call.shapes[0])
        entries: list[Any] = [call.writer.size(value, dim) for dim in range(rank)]
    else:
        entries = list(call.needed(0).shape)
    return _array(entries[call.number("start", 0) : call.attributes.get("end")])


def computed(call: Call) -> Array:
    """The result of an operation whose inputs are all known now or are extents.

    Raises BundleError for one that isn't known for numbers.
    """
    values = [call.needed(index) for index in range(len(call.inputs)) if call.inputs[index] is not None]
    if call.op in _OPERATORS:
        return _whole(_OPERATORS[call.op](*values))
    if call.op == "Div":
        return _each(lambda one, other: divided(call.writer, one, other), *values)
    if call.op in _ROUNDED:
        return _each(lambda number: rounded(call.writer, number, _ROUNDED[call.op]), values[0])
    if call.op == "Neg":
        return _whole(-values[0])
    if call.op in _OF_CONSTANTS and all(map(is_plain, values)):
        return np.asarray(_OF_CONSTANTS[call.op](*values))
    if call.op in _MOVES:
        return _whole(_MOVES[call.op](call, values))
    raise call.refusal("it is not known for the numbers that it takes")


def _gather(call: Call, values: list[Array]) -> Any:
    return np.take(values[0], values[1].astype(np.int64), axis=call.number("axis", 0))


def _concat(call: Call, values: list[Array]) -> Any:
    return np.concatenate(values, axis=call.number("axis", 0))


def _squeeze(call: Call, values: list[Array]) -> Any:
    axes = call.items(1, "axes")
    return values[0].reshape(()) if axes is None and values[0].size == 1 else np.squeeze(values[0], tuple(axes or ()))


def _unsqueeze(call: Call, values: list[Array]) -> Any:
    return np.expand_dims(values[0], tuple(call.items(1, "axes") or ()))


def _reshape(_call: Call, values: list[Array]) -> Any:
    return values[0].reshape([int(entry) for entry in values[1].reshape(-1)])


def _slice(call: Call, values: list[Array]) -> Any:
    starts, ends = call.items(1, "starts") or [], call.items(2, "ends") or []
    axes, steps = call.items(3, "axes") or list(range(len(starts))), call.items(4, "steps") or [1] * len(starts)
    index: list[slice] = [slice(None)] * values[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        stop = None if step < 0 and end < -values[0].shape[axis] else end
        index[axis] = slice(start, stop, step)
    return values[0][tuple(index)]


def _transpose(call: Call, values: list[Array]) -> Any:
    return np.transpose(values[0], call.attributes.get("perm"))


def _filled(call: Call, values: list[Array]) -> Any:
    value: Array = np.asarray(call.attributes.get("value", np.zeros(1, np.float32)))
    shape = [int(entry) for entry in values[0].reshape(-1)]
    if np.prod(shape) > 1e6:
        raise call.refusal(f"it fills {shape}")
    return np.full(shape, value.reshape(-1)[0])


def _expanded(call: Call, values: list[Array]) -> Any:
    shape = [int(entry) for entry in values[1].reshape(-1)]
    if np.prod(shape) > 1e6:
        raise call.refusal(f"it fills {shape}")
    return values[0] * np.ones(shape, values[0].dtype)


def _cast(call: Call, values: list[Array]) -> Any:
    wanted, value = call.number("to", 1), values[0]
    if wanted in _WHOLE:
        return _each(lambda number: rounded(call.writer, number, "math.trunc"), value)
    if wanted in _FLOATS:
        return value if value.dtype == object else value.astype(np.float64 if wanted == 11 else np.float32)
    raise call.refusal("it makes other numbers than whole or float32")


_MOVES: dict[str, Callable[[Call, list[Array]], Any]] = {
    "Gather": _gather,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": _transpose,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Cast": _cast,
    "Identity": lambda _call, values: values[0],
}


def _each(function: Callable[..., Any], *values: Array) -> Array:
    """`function` of the entries, place by place."""
    if all(value.dtype.kind == "f" for value in values) and len(values) > 1:
        return np.asarray(np.divide(*values))
    spread = np.broadcast_arrays(*[value.astype(object) for value in values])
    results = [function(*entries) for entries in zip(*(value.reshape(-1) for value in spread), strict=True)]
    return _array(results).reshape(spread[0].shape)


def _array(entries: list[Any]) -> Array:
    made = np.empty(len(entries), dtype=object)
    made[:] = entries
    return _whole(made)


def _whole(array: Any) -> Array:
    """An array of numbers alone in their own type again, so that it can be a tensor."""
    array = np.asarray(array)
    if array.dtype != object or any(isinstance(entry, Extent) for entry in array.reshape(-1)):
        return array
    return np.array(array.tolist())
