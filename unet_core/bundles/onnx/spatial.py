"""ONNX operations that combine pixels of different places: convolutions, poolings, resizing, padding, cutting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unet_core.bundles.onnx.call import Call
from unet_core.bundles.onnx.values import Extent, Pixels

OPEN_ONNX = (
    "export it with open height and width, as torch.onnx.export does with dynamic_shapes (or dynamic_axes) for the "
    "dimensions 0, 2 and 3"
)
_OPEN = f"on tiles of another extent it would be another network; {OPEN_ONNX}"
_PAD_MODES = {"reflect": "reflection_pad2d.default", "edge": "replication_pad2d.default"}
_WITHOUT_END = 2**31 - 1


def conv(call: Call) -> Pixels:
    weight, bias = call.needed(1), call.array(2)
    if weight.ndim != 4:
        raise call.refusal(f"its weights are {weight.shape}: only planes of pixels are known")
    kernel = list(weight.shape[2:])
    pixels, padding = _padded(call, kernel, 0.0)
    strides, dilations = call.pair("strides", 1), call.pair("dilations", 1)
    groups = call.number("group", 1)
    return call.writer.call("conv2d.default", pixels, weight, bias, strides, padding, dilations, groups)


def conv_transpose(call: Call) -> Pixels:
    weight, bias = call.needed(1), call.array(2)
    if weight.ndim != 4:
        raise call.refusal(f"its weights are {weight.shape}: only planes of pixels are known")
    top, left, bottom, right = call.attributes.get("pads") or (0, 0, 0, 0)
    if call.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in call.attributes:
        raise call.refusal("its padding follows the extent of its output", "give it pads and output_padding")
    if (top, left) != (bottom, right):
        raise call.refusal(f"it cuts unequal sides ({top}, {left}, {bottom}, {right})", "give it equal pads")
    strides, dilations = call.pair("strides", 1), call.pair("dilations", 1)
    extra, groups = call.pair("output_padding", 0), call.number("group", 1)
    op = "conv_transpose2d.input"
    return call.writer.call(op, call.pixels(), weight, bias, strides, [top, left], extra, groups, dilations)


def max_pool(call: Call) -> Pixels:
    if call.outputs > 1:
        raise call.refusal("it gives the places of its maxima")
    kernel = call.pair("kernel_shape", 1)
    pixels, padding = _padded(call, kernel, -math.inf)
    strides, dilations, ceil = call.pair("strides", 1), call.pair("dilations", 1), bool(call.number("ceil_mode", 0))
    return call.writer.call("max_pool2d.default", pixels, kernel, strides, padding, dilations, ceil)


def average_pool(call: Call) -> Pixels:
    kernel, shape = call.pair("kernel_shape", 1), call.shapes[0]
    if shape is not None and tuple(kernel) == shape[2:]:
        raise call.refusal(f"its {kernel} px are the whole of the example", _OPEN)
    counts = bool(call.number("count_include_pad", 0))
    top, left, bottom, right = call.attributes.get("pads") or (0, 0, 0, 0)
    if not counts and ((top, left) != (bottom, right) or call.text("auto_pad", "NOTSET").startswith("SAME")):
        raise call.refusal("it divides by fewer pixels at unequal edges", "give it equal pads, or count_include_pad")
    if call.pair("dilations", 1) != [1, 1]:
        raise call.refusal("it is dilated")
    pixels, padding = _padded(call, kernel, 0.0)
    strides, ceil = call.pair("strides", 1), bool(call.number("ceil_mode", 0))
    return call.writer.call("avg_pool2d.default", pixels, kernel, strides, padding, ceil, counts)


def global_average_pool(call: Call) -> Pixels:
    return call.writer.call("adaptive_avg_pool2d.default", call.pixels(), [1, 1])


def global_max_pool(call: Call) -> Pixels:
    return call.writer.call("amax.default", call.pixels(), [2, 3], True)


def resize(call: Call) -> Pixels:
    """Resize, and Upsample of older versions, as torch's interpolation where both mean the same places."""
    given = call.array(1 if call.op == "Upsample" or call.opset < 11 else 2)
    scales = given.reshape(-1).tolist() if given is not None and given.size else None
    sizes = call.array(3) if len(call.inputs) > 3 else None
    if scales is None and call.op == "Upsample" and "scales" in call.attributes:
        scales = list(call.attributes["scales"])
    if call.attributes.get("axes"):
        raise call.refusal("it names its axes", "resize height and width of (batch, band, y, x)")
    op, align = _interpolation(call)
    aligned = [] if align is None else [align]
    if scales is not None:
        if len(scales) != 4 or scales[:2] != [1, 1] or not all(isinstance(scale, float | int) for scale in scales):
            raise call.refusal(f"its scales are {scales}", "resize height and width by numbers")
        return call.writer.call(op, call.pixels(), None, *aligned, [float(scale) for scale in scales[2:]])
    entries = [] if sizes is None else sizes.reshape(-1).tolist()
    if len(entries) != 4:
        raise call.refusal("it has neither scales nor sizes")
    if not all(isinstance(entry, Extent) for entry in entries[2:]):
        raise call.refusal(f"the extent {entries[2:]} of its example is baked into it", _OPEN)
    return call.writer.call(op, call.pixels(), entries[2:], *aligned, None)


def _interpolation(call: Call) -> tuple[str, bool | None]:
    """The operation of torch, and whether it aligns corners."""
    mode, nearest = call.text("mode", "nearest"), call.text("nearest_mode", "round_prefer_floor")
    places = call.text("coordinate_transformation_mode", "half_pixel")
    if call.op == "Upsample" or call.opset < 11:
        places, nearest = "asymmetric", "floor"
    if call.number("antialias", 0) or call.number("exclude_outside", 0):
        raise call.refusal("it smooths, or weighs by what lies inside")
    match mode, places, nearest:
        case "nearest", "asymmetric", "floor":
            return "upsample_nearest2d.vec", None
        case "nearest", "half_pixel", "round_prefer_ceil" | "round_prefer_floor":
            return "_upsample_nearest_exact2d.vec", None
        case "linear", "half_pixel" | "pytorch_half_pixel", _:
            return "upsample_bilinear2d.vec", False
        case "linear", "align_corners", _:
            return "upsample_bilinear2d.vec", True
        case "cubic", "half_pixel" | "pytorch_half_pixel", _ if call.number("cubic_coeff_a", -0.75) == -0.75:
            return "upsample_bicubic2d.vec", False
        case _:
            raise call.refusal(
                f"it places pixels by {mode}, {places}, {nearest}, as torch never does",
                "use nearest, bilinear or bicubic interpolation of torch",
            )


def pad(call: Call) -> Pixels:
    amounts, value = call.items(1, "pads"), call.scalar(2) if len(call.inputs) > 2 else call.number("value", 0.0)
    axes = call.array(3) if len(call.inputs) > 3 else None
    if amounts is None or axes is not None or len(amounts) != 8:
        raise call.refusal("its pads are not those of (batch, band, y, x)")
    if any(isinstance(entry, Extent) or entry for entry in (*amounts[:2], *amounts[4:6])):
        raise call.refusal("it pads batch or bands")
    top, left, bottom, right = amounts[2], amounts[3], amounts[6], amounts[7]
    mode, sides = call.text("mode", "constant"), [left, right, top, bottom]
    if mode == "constant":
        return call.writer.call("constant_pad_nd.default", call.pixels(), sides, value or 0.0)
    if mode not in _PAD_MODES:
        raise call.refusal(f"it pads by {mode}", "pad by constants, edges or reflection")
    return call.writer.call(_PAD_MODES[mode], call.pixels(), sides)


def cut(call: Call) -> Pixels:
    starts, ends = call.items(1, "starts"), call.items(2, "ends")
    if starts is None or ends is None:
        raise call.refusal("its places are missing")
    axes = call.items(3, "axes") or list(range(len(starts)))
    steps = call.items(4, "steps") or [1] * len(starts)
    pixels = call.pixels()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        stop = None if not isinstance(end, Extent) and end >= _WITHOUT_END else end
        if isinstance(step, Extent) or step < 1:
            raise call.refusal(f"it steps by {step}")
        pixels = call.writer.call("slice.Tensor", pixels, axis, start, stop, step)
    return pixels


def shuffle(call: Call) -> Pixels:
    factor = call.number("blocksize", 1)
    if call.text("mode", "DCR") != "CRD":
        raise call.refusal("it takes channels in the order DCR", "use the order CRD, which is torch's pixel_shuffle")
    return call.writer.call("pixel_shuffle.default", call.pixels(), factor)


def _padded(call: Call, kernel: list[int], filling: float) -> tuple[Pixels, list[int]]:
    """The pixels, and the padding that torch's form of the call still adds: equal at opposite sides."""
    top, left, bottom, right = _pads(call, kernel)
    if (top, left) == (bottom, right):
        return call.pixels(), [top, left]
    return call.writer.call("constant_pad_nd.default", call.pixels(), [left, right, top, bottom], filling), [0, 0]


def _pads(call: Call, kernel: list[int]) -> list[int]:
    auto = call.text("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads: list[Any] = list(call.attributes.get("pads") or (0, 0, 0, 0))
        if len(pads) != 4:
            raise call.refusal(f"its pads are {pads}: only planes of pixels are known")
        return pads
    if auto == "VALID":
        return [0, 0, 0, 0]
    spans = [d * (k - 1) for d, k in zip(call.pair("dilations", 1), kernel, strict=True)]
    if call.pair("strides", 1) != [1, 1]:
        if np.array_equal(call.pair("strides", 1), kernel):
            return [0, 0, 0, 0]  # of extents on the stride's grid, as all are here
        raise call.refusal(f"its padding ({auto}) follows the extent of its input", "give it pads in numbers")
    less, more = [span // 2 for span in spans], [span - span // 2 for span in spans]
    return [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
