"""Translation of an ONNX graph into the steps of a program, operation by operation.

What ONNX computes from extents is computed by the program from the tile at hand; constants stay constants. An operation
that isn't known, or that means something else than torch's, is refused by name: a close one would give close labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from unet_core.bundles.exported.graph import Program
from unet_core.bundles.exported.schema import named_in, used_steps
from unet_core.bundles.onnx import extents, pixelwise, spatial
from unet_core.bundles.onnx.call import Call
from unet_core.bundles.onnx.file import array_of, read_model, read_tensors
from unet_core.bundles.onnx.values import Array, Pixels, Value, Writer
from unet_core.bundles.weights import expect_finite
from unet_core.errors import BundleError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

    Shape = tuple[int | None, ...]

_TILE = "tiles_NCHW"
_FLOAT32 = 1
_TO_LAST, _TO_SECOND = (0, 2, 3, 1), (0, 3, 1, 2)
_MOST_BANDS = 512
_MALFORMED = (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, ZeroDivisionError)


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """A network read from an ONNX file. `left_out` is the decision that ends its graph, which the card makes."""

    program: Program
    tensors: dict[str, Tensor]
    left_out: str | None


def read_onnx(path: Path) -> OnnxNetwork:
    """The program in an ONNX file, and its tensors.

    Raises BundleError for a file that isn't whole, several inputs or outputs, extents that are baked into the graph,
    or operations that aren't known.
    """
    model = read_model(path)
    try:
        return _translated(model, path)
    except BundleError as error:
        raise BundleError(f"model {str(path)!r}: {error}") from error


def _translated(model: ModelProto, path: Path) -> OnnxNetwork:
    graph, writer = model.graph, Writer()
    tensors = read_tensors(graph, path.parent)
    tile = _Tile.of(graph, tensors)
    pixels = Pixels(_TILE)
    if tile.is_last:
        pixels = Pixels(writer.call("permute.default", pixels, list(_TO_LAST)).name, pixels, _TO_LAST)
    values: dict[str, Value] = {name: writer.name_array(array, name) for name, array in tensors.items()}
    walk = _Walk(values | {tile.name: pixels}, writer, _shapes(model), _opset(model))
    nodes, output, left_out = _without_decision(graph)
    for node in nodes:
        walk.step(node)
    logits = walk.values.get(output)
    if not isinstance(logits, Pixels):
        raise BundleError(f"its output {output!r} does not depend on its tile; export the network again")
    if tile.is_last:
        undoes = logits.source is not None and logits.order == _TO_LAST
        logits = logits.source if undoes and logits.source else writer.call("permute.default", logits, list(_TO_SECOND))
    steps = used_steps(writer.steps, logits.name)
    used = named_in([[step.args, [*step.options.values()]] for step in steps], "tensor")
    for name in sorted(used):
        expect_finite(name, writer.tensors[name], path)
    program = Program(
        input=_TILE,
        output=logits.name,
        bands=tile.bands,
        fixed_px=tile.fixed_px,
        tensors={name: kind for name, kind in writer.kinds().items() if name in used},
        steps=steps,
    )
    return OnnxNetwork(program, {name: writer.tensors[name] for name in used}, left_out)


@dataclass(frozen=True, slots=True)
class _Tile:
    """The graph's input. `is_last`: its bands are its last dimension, as TensorFlow keeps them."""

    name: str
    bands: int
    fixed_px: tuple[int, int] | None
    is_last: bool

    @classmethod
    def of(cls, graph: GraphProto, tensors: dict[str, Array]) -> _Tile:
        inputs = [entry for entry in graph.input if entry.name not in tensors]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise BundleError(
                f"it has {len(inputs)} inputs and {len(graph.output)} outputs: a network takes one batch of tiles and "
                f"gives one batch of logits; wrap it so that its forward does, and export it again"
            )
        shape, kind = _shape_of(inputs[0]), inputs[0].type.tensor_type.elem_type
        if shape is None or len(shape) != 4 or kind != _FLOAT32:
            raise BundleError(f"its input {inputs[0].name!r} is {shape}, not float32 tiles of (batch, band, y, x)")
        is_last = shape[1] is None and shape[3] is not None
        is_last = is_last or (shape[1] or 0) > _MOST_BANDS >= (shape[3] or _MOST_BANDS + 1)
        bands, extent = (shape[3], shape[1:3]) if is_last else (shape[1], shape[2:])
        if bands is None:
            raise BundleError(f"its input {inputs[0].name!r} leaves the number of bands open; export it with a number")
        y, x = extent
        fixed_px = (y or x or 1, x or y or 1) if y is not None or x is not None else None
        return cls(inputs[0].name, bands, fixed_px, is_last)


@dataclass(frozen=True, slots=True)
class _Walk:
    """The graph's nodes in order: each gives values to those after it."""

    values: dict[str, Value]
    writer: Writer
    shapes: dict[str, Shape]
    opset: int

    def step(self, node: NodeProto) -> None:
        label = node.name or (node.output[0] if node.output else node.op_type)
        operation = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        self.writer.layer = label
        call = Call(
            operation,
            label[:100],
            {entry.name: _attribute(entry) for entry in node.attribute},
            [self._value(name) for name in node.input],
            sum(1 for name in node.output if name),
            self.opset,
            self.writer,
            [self.shapes.get(name) for name in node.input],
        )
        try:
            results = _results(call)
        except _MALFORMED as error:
            message = " ".join(str(error).split())[:100]
            raise call.refusal(
                f"its arguments contradict each other ({message})", "export the network again"
            ) from error
        self.values.update(zip((name for name in node.output if name), results, strict=False))

    def _value(self, name: str) -> Value | None:
        if not name:
            return None
        if name not in self.values:
            raise BundleError(f"no operation of its graph gives {name[:100]!r} before it is used; export it again")
        return self.values[name]


def _results(call: Call) -> list[Value]:
    if call.op == "Constant":
        return [_constant(call)]
    if call.op == "Shape":
        return [extents.shape_of(call)]
    if not any(isinstance(value, Pixels) for value in call.inputs):
        return [extents.computed(call)]
    if call.op == "Split":
        return pixelwise.split(call)
    translated = _KNOWN.get(call.op)
    if translated is None:
        raise call.refusal("it is not among the operations that overtile knows")
    return [translated(call)]


_KNOWN: dict[str, Callable[[Call], Pixels]] = {
    "Conv": spatial.conv,
    "ConvTranspose": spatial.conv_transpose,
    "MaxPool": spatial.max_pool,
    "AveragePool": spatial.average_pool,
    "GlobalAveragePool": spatial.global_average_pool,
    "GlobalMaxPool": spatial.global_max_pool,
    **dict.fromkeys(("Resize", "Upsample"), spatial.resize),
    "Pad": spatial.pad,
    "Slice": spatial.cut,
    "DepthToSpace": spatial.shuffle,
    **dict.fromkeys(pixelwise.PLAIN, pixelwise.plain),
    **dict.fromkeys(pixelwise.ARITHMETIC, pixelwise.arithmetic),
    **dict.fromkeys(("Max", "Min", "Sum"), pixelwise.extremes),
    "Pow": pixelwise.power,
    "Clip": pixelwise.clip,
    "LeakyRelu": pixelwise.with_alpha("leaky_relu.default", 0.01),
    "Elu": pixelwise.with_alpha("elu.default", 1.0),
    "Celu": pixelwise.with_alpha("celu.default", 1.0),
    "Selu": pixelwise.selu,
    "HardSigmoid": pixelwise.hard_sigmoid,
    "Gelu": pixelwise.gelu,
    "PRelu": pixelwise.prelu,
    "BatchNormalization": pixelwise.batch_norm,
    "InstanceNormalization": pixelwise.instance_norm,
    "LayerNormalization": pixelwise.layer_norm,
    "GroupNormalization": pixelwise.group_norm,
    **dict.fromkeys(("Softmax", "LogSoftmax"), pixelwise.softmax),
    **dict.fromkeys(pixelwise.REDUCTIONS, pixelwise.reduced),
    "MatMul": pixelwise.matrix,
    "Concat": pixelwise.concatenated,
    "Transpose": pixelwise.transposed,
    **dict.fromkeys(("Squeeze", "Unsqueeze"), pixelwise.squeezed),
    "Reshape": pixelwise.reshaped,
    "Expand": pixelwise.expanded,
    "Gather": pixelwise.picked,
    "Cast": pixelwise.cast,
    **dict.fromkeys(("Identity", "Dropout"), pixelwise.unchanged),
}


def _constant(call: Call) -> Array:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in call.attributes:
            found = call.attributes[name]
            return found if isinstance(found, np.ndarray) else np.array(found, np.float32 if "float" in name else None)
    raise call.refusal(f"it holds {', '.join(call.attributes) or 'nothing'}, which is no tensor")


def _attribute(entry: AttributeProto) -> Any:
    from onnx import AttributeProto as Kinds

    match entry.type:
        case Kinds.FLOAT:
            return entry.f
        case Kinds.INT:
            return entry.i
        case Kinds.STRING:
            return entry.s
        case Kinds.TENSOR:
            return array_of(entry.t, None)
        case Kinds.FLOATS:
            return [*entry.floats]
        case Kinds.INTS:
            return [*entry.ints]
        case _:
            return None


def _without_decision(graph: GraphProto) -> tuple[list[NodeProto], str, str | None]:
    """The nodes, the output, and the decision among them that a card makes: an argmax over the bands at the end."""
    output = graph.output[0].name
    last = next((node for node in reversed(graph.node) if output in node.output), None)
    if last is None or last.op_type != "ArgMax":
        return list(graph.node), output, None
    axis = next((entry.i for entry in last.attribute if entry.name == "axis"), 0)
    if axis not in (1, -3):
        raise BundleError(f"it ends in an ArgMax over dimension {axis}, which are not its bands; leave it out")
    return [node for node in graph.node if node is not last], last.input[0], "argmax"


def _opset(model: ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Facts that the library gives of the values' shapes; nothing where it can't."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError):
        graph = model.graph
    found = {entry.name: _shape_of(entry) for entry in (*graph.input, *graph.value_info, *graph.output)}
    return {name: shape for name, shape in found.items() if shape is not None}


def _shape_of(entry: ValueInfoProto) -> Shape | None:
    kind = entry.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
