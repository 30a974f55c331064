"""The rules: what each torch call that bounds inference knows does to pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from torch import fx

from unet_core.bounds import calls
from unet_core.bounds.axis import AxisMap, Border, Enlarge, Spread, Thin, Window
from unet_core.bounds.operators import NCYX, SAME, Axes, Described, Kind, Operator


def describe(graph: fx.Graph) -> Described:
    """Classify every call of a recorded graph that carries pixels, in order."""
    known: Described = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = Operator(node, "input", "input")
        elif node.op != "output" and not node.meta["constant"]:
            known[node] = _Description(node, known).operator()
    return known


class _RefusalError(Exception):
    """Why the call at hand has no finite bounds."""


class _Description:
    """The rules; one method per family of calls."""

    def __init__(self, node: fx.Node, known: Described) -> None:
        self.node = node
        self.known = known
        self.layer: str = node.meta["layer"]
        self.spatial = [arg for arg in node.all_input_nodes if arg in known and known[arg].dims]
        self.dims = known[self.spatial[0]].dims if self.spatial else ""

    def operator(self) -> Operator:
        if not self.spatial:
            return self._adopted()
        name = calls.name_of(self.node)
        try:
            if name in calls.GLOBAL:
                raise _RefusalError(calls.GLOBAL[name])
            rule = _RULES.get(name)
            if rule is None:
                raise _RefusalError(f"{name} is not an operation whose bounds are known")
            return rule(self, calls.bind(self.node))
        except _RefusalError as refusal:
            return self._unbounded(str(refusal))

    def _make(
        self, kind: Kind, axes: Axes = SAME, args: dict[str, Any] | None = None, dims: str | None = None
    ) -> Operator:
        return Operator(
            self.node,
            self.layer,
            kind,
            tuple(self.spatial),
            (axes,) * len(self.spatial),
            self.dims if dims is None else dims,
            args=args or {},
        )

    def _unbounded(self, why: str) -> Operator:
        """The walk goes on as if the call were pointwise where it keeps the extents, and stops otherwise."""
        sources = [node for node in self.spatial if self._extents(node) == self._extents(self.node)]
        kept = sources[:1] if len(self.node.meta["shape"]) == len(self.dims) else []
        return Operator(
            self.node,
            self.layer,
            "unbounded",
            tuple(kept),
            (SAME,) * len(kept),
            self.dims if kept else "",
            problem=why,
        )

    def _adopted(self) -> Operator:
        """A call on what an unbounded one made; pixels again once it has the extents of an earlier value."""
        shape = self.node.meta["shape"]
        for source, operator in reversed(self.known.items()):
            if len(shape) == 4 and operator.dims == NCYX and source.meta["shape"][2:] == shape[2:] != (1, 1):
                return Operator(self.node, self.layer, "pointwise", (source,), (SAME,), NCYX)
        return Operator(self.node, self.layer, "pointwise", dims="")

    def _extents(self, node: fx.Node) -> tuple[int, ...]:
        shape = node.meta["shape"]
        if len(shape) != len(self.dims):
            return ()
        return tuple(shape[self.dims.index(axis)] for axis in "YX")

    def _expect_planes(self) -> None:
        if self.dims != NCYX:
            raise _RefusalError(f"{calls.name_of(self.node)} runs over dimensions {self.dims}, not over {NCYX}")

    def _axis(self, dim: int) -> str:
        return self.dims[dim]

    def _expect_constant(self, value: object) -> None:
        if isinstance(value, fx.Node) and not value.meta["constant"]:
            raise _RefusalError("its weights are computed from the pixels")

    # Pixel by pixel

    def pointwise(self, _args: dict[str, Any]) -> Operator:
        for other in self.node.all_input_nodes:
            shape: tuple[int, ...] = other.meta["shape"]
            if other in self.spatial:
                if self.known[other].dims != self.dims or self._extents(other) != self._extents(self.node):
                    raise _RefusalError("it combines values of different extents")
            elif len(shape) > len(self.dims):
                raise _RefusalError("it adds dimensions")
            else:
                seen = self.dims[len(self.dims) - len(shape) :]
                if any(size != 1 for axis, size in zip(seen, shape, strict=True) if axis in "YX"):
                    raise _RefusalError("it combines pixels with a tensor that differs from place to place")
        return self._make("pointwise")

    def identity(self, _args: dict[str, Any]) -> Operator:
        return self._make("identity")

    def dropout(self, args: dict[str, Any]) -> Operator:
        if args["training"]:
            raise _RefusalError("it drops values at random even in evaluation mode")
        return self._make("identity")

    def batch_norm(self, args: dict[str, Any]) -> Operator:
        if args["training"]:
            raise _RefusalError("it normalises by the statistics of the whole tile (no running statistics)")
        return self._make("pointwise")

    def instance_norm(self, args: dict[str, Any]) -> Operator:
        if args["use_input_stats"]:
            raise _RefusalError("it normalises by the mean and variance over the whole image")
        return self._make("pointwise")

    def along(self, args: dict[str, Any]) -> Operator:
        """Softmax, mean, argmax, cat and their like: pointwise when they run over channels."""
        dim = args["dim"]
        dims = [dim] if isinstance(dim, int) else list(dim or range(len(self.dims)))
        axes = {self._axis(d) for d in dims}
        if axes - {"C"}:
            raise _RefusalError(f"{calls.name_of(self.node)} runs over {_NAMES[max(axes)]}")
        shape = self.node.meta["shape"]
        return self._make("pointwise", dims=self.dims.replace("C", "") if len(shape) < len(self.dims) else None)

    def cat(self, args: dict[str, Any]) -> Operator:
        if self._axis(args["dim"]) != "C":
            raise _RefusalError(f"it concatenates over {_NAMES[self._axis(args['dim'])]}")
        if any(arg not in self.spatial for arg in self.node.all_input_nodes):
            raise _RefusalError("it concatenates pixels with a tensor that is the same at every tile")
        return self._make("pointwise")

    def channels_last(self, args: dict[str, Any]) -> Operator:
        """Linear and layer norm: over the last dimensions, which must be the channels alone."""
        count = len(args.get("normalized_shape") or (1,))
        if self.dims[-count:] != "C":
            raise _RefusalError(f"{calls.name_of(self.node)} runs over {self.dims[-count:]}, not over channels alone")
        return self._make("pointwise", args=args)

    def permute(self, args: dict[str, Any]) -> Operator:
        return self._make("pointwise", dims="".join(self.dims[d] for d in args["dims"]))

    def transpose(self, args: dict[str, Any]) -> Operator:
        order = list(self.dims)
        a, b = args["dim0"], args["dim1"]
        order[a], order[b] = order[b], order[a]
        return self._make("pointwise", dims="".join(order))

    def repeat(self, args: dict[str, Any]) -> Operator:
        if [n for n, axis in zip(args["repeats"], self.dims, strict=True) if axis != "C" and n != 1]:
            raise _RefusalError("it repeats pixels")
        return self._make("pointwise")

    def item(self, _args: dict[str, Any]) -> Operator:
        return self._make("item")

    # Convolution and pooling

    def conv(self, args: dict[str, Any]) -> Operator:
        self._expect_planes()
        self._expect_constant(args["weight"])
        kernel = calls.pair(args["weight"].meta["shape"][2:])
        stride, dilation = calls.pair(args["stride"]), calls.pair(args["dilation"])
        axes: list[AxisMap] = []
        for axis in (0, 1):
            total = dilation[axis] * (kernel[axis] - 1)
            if args["padding"] in ("same", "valid"):
                before = total // 2 if args["padding"] == "same" else 0
                after = total - before if args["padding"] == "same" else 0
            else:
                before = after = calls.pair(args["padding"])[axis]
            axes.append(Window(kernel[axis], stride[axis], dilation[axis], before, after))
        return self._make("window", (axes[0], axes[1]), args)

    def pool(self, args: dict[str, Any]) -> Operator:
        self._expect_planes()
        kernel, padding = calls.pair(args["kernel_size"]), calls.pair(args["padding"])
        stride = calls.pair(args["stride"] or kernel)
        dilation = calls.pair(args.get("dilation", 1))
        ceil = bool(args["ceil_mode"])
        axes = [Window(kernel[i], stride[i], dilation[i], padding[i], padding[i], ceil=ceil) for i in (0, 1)]
        return self._make("window", (axes[0], axes[1]), args)

    def conv_transpose(self, args: dict[str, Any]) -> Operator:
        self._expect_planes()
        self._expect_constant(args["weight"])
        kernel = calls.pair(args["weight"].meta["shape"][2:])
        stride, dilation = calls.pair(args["stride"]), calls.pair(args["dilation"])
        padding, extra = calls.pair(args["padding"]), calls.pair(args["output_padding"])
        axes = [Spread(kernel[i], stride[i], dilation[i], padding[i], extra[i]) for i in (0, 1)]
        return self._make("spread", (axes[0], axes[1]), args)

    def unpool(self, args: dict[str, Any]) -> Operator:
        indices: fx.Node = args["indices"]
        pool = self.known.get(indices.args[0]) if calls.name_of(indices) == "_item" else None  # type: ignore[arg-type]
        if pool is None or pool.kind != "window" or indices.args[1] != 1:
            raise _RefusalError("its indices don't come straight from a max pooling")
        extents = pool.inputs[0].meta["shape"][2:]
        if self.node.meta["shape"][2:] != extents:
            raise _RefusalError("its extents differ from those its indices were taken at")
        axes: list[AxisMap] = []
        for window, length, full in zip(pool.axes[0], args["input"].meta["shape"][2:], extents, strict=True):
            assert isinstance(window, Window)
            bare = Spread(window.kernel, window.stride, window.dilation, window.before)
            axes.append(Spread(*_fields(bare), extra=full - bare.extent(length)))
        return self._make("unpool", (axes[0], axes[1]), args)

    # Resampling, borders and crops

    def interpolate(self, args: dict[str, Any]) -> Operator:
        self._expect_planes()
        mode = args["mode"]
        if args["align_corners"]:
            raise _RefusalError("align_corners=True makes every pixel's place depend on the image's extent")
        if mode not in _RADIUS or args["antialias"]:
            raise _RefusalError(f"interpolation {mode!r}{' with antialias' * bool(args['antialias'])} is not known")
        before, after = self.spatial[0].meta["shape"][2:], self.node.meta["shape"][2:]
        if before == after:
            return self._make("identity")
        axes = [self._resampled(mode, Fraction(after[i], before[i])) for i in (0, 1)]
        return self._make("resample", (axes[0], axes[1]), args)

    def _resampled(self, mode: str, factor: Fraction) -> AxisMap:
        if factor.denominator == 1:
            return Enlarge(int(factor), _RADIUS[mode])
        if factor.numerator != 1 or mode == "bicubic":
            raise _RefusalError(f"{mode} interpolation by {float(factor):g} is not by a whole factor")
        n = factor.denominator
        if mode == "nearest":
            return Thin(n, 0, 0)
        return Thin(n, n // 2, n // 2) if mode == "nearest-exact" else Thin(n, (n - 1) // 2, n // 2)

    def shuffle(self, args: dict[str, Any]) -> Operator:
        self._expect_planes()
        factor = args["factor"]
        if calls.name_of(self.node) == "pixel_shuffle":
            return self._make("resample", (Enlarge(factor), Enlarge(factor)), args)
        return self._make("resample", (Thin(factor, 0, factor - 1), Thin(factor, 0, factor - 1)), args)

    def adaptive(self, args: dict[str, Any]) -> Operator:
        if self._extents(self.spatial[0]) != self._extents(self.node):
            raise _RefusalError("adaptive pooling to a fixed size sees the whole image")
        return self._make("identity")

    def pad(self, args: dict[str, Any]) -> Operator:
        self._expect_planes()
        amounts = [*args["pad"], *[0] * (8 - len(args["pad"]))]
        if any(amounts[6:]):
            raise _RefusalError("it pads the batch")
        if args["mode"] not in ("constant", "reflect", "replicate"):
            raise _RefusalError(f"{args['mode']} padding joins opposite edges of the image")
        axes = [Border(amounts[2 - 2 * i], amounts[3 - 2 * i], args["mode"]) for i in (0, 1)]
        return self._make("border", (axes[0], axes[1]), {**args, "channels": amounts[4:6]})

    def getitem(self, args: dict[str, Any]) -> Operator:
        index = list(calls.index_of(args["index"], len(self.dims)))
        axes: dict[str, AxisMap] = {}
        shape = self.spatial[0].meta["shape"]
        for dim, axis in enumerate(self.dims):
            if axis == "C":
                continue
            if not isinstance(index[dim], slice):
                raise _RefusalError(f"it picks single places along {_NAMES[axis]}")
            start, stop, step = index[dim].indices(shape[dim])
            if axis == "N" and len(range(start, stop, step)) != shape[dim]:
                raise _RefusalError("it picks parts of the batch")
            trailing = stop - shape[dim]
            axes[axis] = Border(-start, trailing) if step == 1 else Window(1, step, 1, -start, trailing)
            index[dim] = slice(None)
        channels = index[self.dims.index("C")] if "C" in self.dims else slice(None)
        dims = self.dims.replace("C", "") if isinstance(channels, int) else self.dims
        plain = channels == slice(None)
        return self._make("crop", (axes["Y"], axes["X"]), {"index": None if plain else tuple(index)}, dims)


def _fields(spread: Spread) -> Iterator[int]:
    return iter((spread.kernel, spread.stride, spread.dilation, spread.before))


_NAMES = {"N": "the batch", "C": "channels", "Y": "space (y)", "X": "space (x)"}
_RADIUS = {"nearest": 0, "nearest-exact": 0, "bilinear": 1, "bicubic": 2}
_Rule = Callable[[_Description, dict[str, Any]], Operator]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(calls.POINTWISE, _Description.pointwise),
    **dict.fromkeys(calls.ALONG, _Description.along),
    **dict.fromkeys(("dropout", "dropout2d", "alpha_dropout", "feature_dropout"), _Description.dropout),
    **dict.fromkeys(("contiguous", "detach", "clone", "alias"), _Description.identity),
    **dict.fromkeys(("cat", "concat", "concatenate"), _Description.cat),
    **dict.fromkeys(("layer_norm", "linear"), _Description.channels_last),
    "batch_norm": _Description.batch_norm,
    "instance_norm": _Description.instance_norm,
    "permute": _Description.permute,
    "transpose": _Description.transpose,
    "repeat": _Description.repeat,
    "_item": _Description.item,
    "conv2d": _Description.conv,
    "conv_transpose2d": _Description.conv_transpose,
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"), _Description.pool),
    "max_unpool2d": _Description.unpool,
    "interpolate": _Description.interpolate,
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _Description.shuffle),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _Description.adaptive),
    "pad": _Description.pad,
    "getitem": _Description.getitem,
}
