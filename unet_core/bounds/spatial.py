"""Rules of the calls that look around, move or resample pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import fx

from unet_core.bounds import torch_calls
from unet_core.bounds.axis import AxisMap, Border, Downsample, TransposedConvolution, Upsample, Window
from unet_core.bounds.operators import Operator
from unet_core.bounds.rule_context import NAMES, Call, RefusalError

_RADIUS = {"nearest": 0, "nearest-exact": 0, "bilinear": 1, "bicubic": 2}


def conv(call: Call, args: dict[str, Any]) -> Operator:
    call.expect_planes()
    call.expect_constant(args["weight"])
    kernel = torch_calls.pair(args["weight"].meta["shape"][2:])
    stride, dilation = torch_calls.pair(args["stride"]), torch_calls.pair(args["dilation"])
    axes: list[AxisMap] = []
    for axis in (0, 1):
        total = dilation[axis] * (kernel[axis] - 1)
        if args["padding"] in ("same", "valid"):
            before = total // 2 if args["padding"] == "same" else 0
            after = total - before if args["padding"] == "same" else 0
        else:
            before = after = torch_calls.pair(args["padding"])[axis]
        axes.append(Window(kernel[axis], stride[axis], dilation[axis], before, after))
    return call.make("window", (axes[0], axes[1]), args)


def convolution(call: Call, args: dict[str, Any]) -> Operator:
    return conv_transpose(call, args) if args["transposed"] else conv(call, args)


def pool(call: Call, args: dict[str, Any]) -> Operator:
    call.expect_planes()
    kernel, padding = torch_calls.pair(args["kernel_size"]), torch_calls.pair(args["padding"])
    stride = torch_calls.pair(args["stride"] or kernel)
    dilation = torch_calls.pair(args.get("dilation", 1))
    ceil, extents = bool(args["ceil_mode"]), call.extents(call.spatial[0])
    over = [(extents[i] + 2 * padding[i] - kernel[i]) % stride[i] for i in (0, 1)]
    if ceil and any(over) and call.name == "avg_pool2d":
        raise RefusalError("average pooling in ceil mode divides by fewer pixels at the far edge")
    axes = [Window(kernel[i], stride[i], dilation[i], padding[i], padding[i], ceil=ceil) for i in (0, 1)]
    return call.make("window", (axes[0], axes[1]), args)


def conv_transpose(call: Call, args: dict[str, Any]) -> Operator:
    call.expect_planes()
    call.expect_constant(args["weight"])
    kernel = torch_calls.pair(args["weight"].meta["shape"][2:])
    stride, dilation = torch_calls.pair(args["stride"]), torch_calls.pair(args["dilation"])
    padding, extra = torch_calls.pair(args["padding"]), torch_calls.pair(args["output_padding"])
    axes = [TransposedConvolution(kernel[i], stride[i], dilation[i], padding[i], extra[i]) for i in (0, 1)]
    return call.make("spread", (axes[0], axes[1]), args)


def unpool(call: Call, args: dict[str, Any]) -> Operator:
    indices: fx.Node = args["indices"]
    pool = call.known.get(indices.args[0]) if torch_calls.name_of(indices) == "_item" else None  # type: ignore[arg-type]
    if pool is None or pool.kind != "window" or indices.args[1] != 1:
        raise RefusalError("its indices don't come straight from a max pooling")
    extents = pool.inputs[0].meta["shape"][2:]
    if call.node.meta["shape"][2:] != extents:
        raise RefusalError("its extents differ from those its indices were taken at")
    axes: list[AxisMap] = []
    for window, length, full in zip(pool.axes[0], args["input"].meta["shape"][2:], extents, strict=True):
        assert isinstance(window, Window)
        bare = TransposedConvolution(window.kernel, window.stride, window.dilation, window.before)
        axes.append(TransposedConvolution(*_fields(bare), extra=full - bare.extent(length)))
    return call.make("unpool", (axes[0], axes[1]), args)


def interpolate(call: Call, args: dict[str, Any]) -> Operator:
    """Upsampling by whole factors, and downsampling by them.

    PyTorch finds source places in float32 from the pixel's index: for a bilinear factor that is no power of two
    they round differently at other indices, so a tile differs from the whole image by about 1e-7 × its index.
    """
    call.expect_planes()
    mode = args["mode"]
    if mode not in _RADIUS or args["antialias"]:
        raise RefusalError(f"interpolation {mode!r}{' with antialias' * bool(args['antialias'])} is not known")
    before, after = call.spatial[0].meta["shape"][2:], call.node.meta["shape"][2:]
    if before == after:
        return call.make("identity")
    factors = [Fraction(after[i], before[i]) for i in (0, 1)]
    given = args["scale_factor"]
    asked = list(given) if isinstance(given, (tuple, list)) else [given, given]
    if given is not None and not args["recompute_scale_factor"] and asked != [float(factor) for factor in factors]:
        raise RefusalError(f"interpolation by {asked} places pixels otherwise than its extents do")
    axes = [_resampled(mode, factor) for factor in factors]
    made = call.make("resample", (axes[0], axes[1]), args)
    if not args["align_corners"]:
        return made
    return replace(made, problem="align_corners=True makes every pixel's place depend on the image's extent")


def _resampled(mode: str, factor: Fraction) -> AxisMap:
    if factor.denominator == 1:
        return Upsample(int(factor), _RADIUS[mode])
    if factor.numerator != 1 or mode == "bicubic":
        raise RefusalError(f"{mode} interpolation by {float(factor):g} is not by a whole factor")
    n = factor.denominator
    if mode == "nearest":
        return Downsample(n, 0, 0)
    return Downsample(n, n // 2, n // 2) if mode == "nearest-exact" else Downsample(n, (n - 1) // 2, n // 2)


def shuffle(call: Call, args: dict[str, Any]) -> Operator:
    call.expect_planes()
    factor = args["factor"]
    if call.name == "pixel_shuffle":
        return call.make("resample", (Upsample(factor), Upsample(factor)), args)
    return call.make("resample", (Downsample(factor, 0, factor - 1), Downsample(factor, 0, factor - 1)), args)


def adaptive(call: Call, args: dict[str, Any]) -> Operator:
    if call.extents(call.spatial[0]) != call.extents(call.node):
        raise RefusalError("adaptive pooling to a fixed size sees the whole image")
    return call.make("identity")


def pad(call: Call, args: dict[str, Any]) -> Operator:
    call.expect_planes()
    amounts = [*args["pad"], *[0] * (8 - len(args["pad"]))]
    if any(amounts[6:]):
        raise RefusalError("it pads the batch")
    if args["mode"] not in ("constant", "reflect", "replicate"):
        raise RefusalError(f"{args['mode']} padding joins opposite edges of the image")
    axes = [Border(amounts[2 - 2 * i], amounts[3 - 2 * i], args["mode"]) for i in (0, 1)]
    return call.make("border", (axes[0], axes[1]), {**args, "channels": amounts[4:6]})


def getitem(call: Call, args: dict[str, Any]) -> Operator:
    index = list(torch_calls.index_of(args["index"], len(call.dims)))
    if any(entry is None or isinstance(entry, fx.Node) for entry in index):
        raise RefusalError("it adds dimensions, or picks by a tensor")
    axes: dict[str, AxisMap] = {}
    shape = call.spatial[0].meta["shape"]
    for dim, axis in enumerate(call.dims):
        if axis == "C":
            continue
        if not isinstance(index[dim], slice):
            raise RefusalError(f"it picks single places along {NAMES[axis]}")
        start, stop, step = index[dim].indices(shape[dim])
        if axis == "N" and len(range(start, stop, step)) != shape[dim]:
            raise RefusalError("it picks parts of the batch")
        trailing = stop - shape[dim]
        axes[axis] = Border(-start, trailing) if step == 1 else Window(1, step, 1, -start, trailing)
        index[dim] = slice(None)
    channels = index[call.dims.index("C")] if "C" in call.dims else slice(None)
    dims = call.dims.replace("C", "") if isinstance(channels, int) else call.dims
    plain = channels == slice(None)
    return call.make("crop", (axes["Y"], axes["X"]), {"index": None if plain else tuple(index)}, dims)


def _fields(spread: TransposedConvolution) -> Iterator[int]:
    return iter((spread.kernel, spread.stride, spread.dilation, spread.before))
