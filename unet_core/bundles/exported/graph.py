"""A program on disk (`graph.json`) and the torch module that it describes.

The file holds calls of ATen operations in order, with their arguments; tensors are named, and their values lie
in the bundle's weights. Extents are computed from the tile at hand, so that the module takes any that the
network takes.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from torch import fx, nn

from unet_core.bundles.exported.operators import expect_options, idiomatic, target_of
from unet_core.errors import BundleError
from unet_core.files import write_whole

GRAPH_NAME = "graph.json"
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_BYTES_LIMIT = 32_000_000
_TENSOR_NAME = r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$"
_VALUE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"

Name = Annotated[str, Field(pattern=_VALUE_NAME, max_length=200)]
TensorName = Annotated[str, Field(pattern=_TENSOR_NAME, max_length=500)]


class TensorKind(BaseModel):
    """Kind of a tensor: what is known of it without its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[NonNegativeInt, ...]
    dtype: str
    is_parameter: bool


class ProgramStep(BaseModel):
    """One call. In its arguments `{"value": name}` is a result, `{"tensor": name}` a tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    op: str
    args: list[Any]
    options: dict[str, Any] = Field(default_factory=dict)
    layer: str = ""


class Program(BaseModel):
    """A network as data: `input` is the tile's name, `output` that of its logits.

    fixed_px: the extents (y, x) that the program was exported for, None where they were left open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    input: Name
    output: Name
    bands: PositiveInt
    fixed_px: tuple[PositiveInt, PositiveInt] | None
    tensors: dict[TensorName, TensorKind]
    steps: list[ProgramStep]

    def to_bytes(self) -> bytes:
        """The program's file, one text for one program."""
        value = self.model_dump(mode="json")
        steps = ",\n  ".join(_compact(step) for step in value.pop("steps"))
        tensors = ",\n  ".join(f"{_compact(name)}: {_compact(kind)}" for name, kind in value.pop("tensors").items())
        head = _compact(value)[1:-1]
        return f'{{{head},\n "tensors": {{\n  {tensors}}},\n "steps": [\n  {steps}]}}\n'.encode()

    def without_last_activation(self) -> tuple[Program, str | None]:
        """The program up to its logits, and the name of the sigmoid or softmax that ended it.

        A card's decision applies it; applied twice it would move every threshold.
        """
        last = self.steps[-1] if self.steps else None
        if last is None or last.name != self.output or not _is_last_activation(last):
            return self, None
        name = last.op.split(".")[3].strip("_")
        return self.model_copy(update={"steps": self.steps[:-1], "output": last.args[0]["value"]}), name

    def digest(self) -> str:
        """sha256 (hex) of the program's file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def _is_last_activation(step: ProgramStep) -> bool:
    of_value = bool(step.args) and isinstance(step.args[0], dict) and "value" in step.args[0]
    over_channels = len(step.args) > 1 and step.args[1] in (1, -3)
    name = step.op.rpartition("aten.")[2].partition(".")[0]
    return of_value and (name in ("sigmoid", "sigmoid_") or (name in ("softmax", "_softmax") and over_channels))


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_program(program: Program, path: Path) -> None:
    """Write `graph.json`, atomically."""
    write_whole(path, lambda file: file.write(program.to_bytes()))


def read_program(path: Path, digest: str) -> Program:
    """The program of a bundle, which must be the one that its card names by `digest`.

    Raises BundleError for a file that is missing, too large, not a program, or another one.
    """
    try:
        if path.stat().st_size > _BYTES_LIMIT:
            raise BundleError(f"graph {str(path)!r} is larger than {_BYTES_LIMIT} bytes: not a network's graph")
        text = path.read_bytes()
        program = Program.model_validate_json(text)
    except OSError as error:
        raise BundleError(f"graph {str(path)!r} can't be read: {error}; save or copy the bundle again") from error
    except (ValidationError, RecursionError) as error:
        message = " ".join(str(error).split())[:200]
        raise BundleError(
            f"graph {str(path)!r} is no network's graph: {message}; save or copy the bundle again"
        ) from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise BundleError(
            f"graph {str(path)!r} is not the one that the bundle's card names: its labels would be another model's; "
            f"save or copy the bundle again"
        )
    return program


def module_of(program: Program) -> fx.GraphModule:
    """The program as a module in evaluation mode, its tensors without values on the meta device.

    Raises BundleError for a call that isn't known to be harmless, or a program that contradicts itself.
    """
    root = nn.Module()
    for name, kind in program.tensors.items():
        _hold(root, name, kind)
    graph = fx.Graph()
    values = {program.input: graph.placeholder("tiles_NCHW")}
    tensors: dict[str, fx.Node] = {}
    for step in program.steps:
        reader = _Reader(program, step, graph, values, tensors)
        target, extra = idiomatic(step.op, target_of(step.op))
        expect_options(step.op, target_of(step.op), step.options)
        args = tuple(reader.read(arg) for arg in step.args)
        options = {name: reader.read(arg) for name, arg in step.options.items()} | extra
        node = graph.call_function(target, args, options)
        # In the form of torch.export, which tells bounds inference whose layer a call is.
        node.meta["nn_module_stack"] = {"": (step.layer, "")}
        if step.name in values:
            raise _contradiction(f"two steps are called {step.name}")
        values[step.name] = node
    if program.output not in values:
        raise _contradiction(f"no step gives {program.output}")
    graph.output(values[program.output])
    return fx.GraphModule(root, graph, "ExportedNetwork").eval()


def _hold(root: nn.Module, path: str, kind: TensorKind) -> None:
    *parents, name = path.split(".")
    at = root
    for part in parents:
        if not hasattr(at, part):
            at.add_module(part, nn.Module())
        at = getattr(at, part)
    if kind.dtype not in DTYPES or not isinstance(at, nn.Module) or hasattr(at, name):
        raise _contradiction(f"tensor {path} of {kind.dtype} has no place")
    # Without memory: a program that lies about its tensors costs nothing.
    tensor = torch.empty(kind.shape, dtype=DTYPES[kind.dtype], device="meta")
    if kind.is_parameter and tensor.is_floating_point():
        at.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    else:
        at.register_buffer(name, tensor)


class _Reader:
    """Turns the arguments of one step into those of a node."""

    def __init__(
        self,
        program: Program,
        step: ProgramStep,
        graph: fx.Graph,
        values: dict[str, fx.Node],
        tensors: dict[str, fx.Node],
    ) -> None:
        self._program, self._step, self._graph = program, step, graph
        self._values, self._tensors = values, tensors

    def read(self, arg: Any) -> Any:
        if isinstance(arg, list):
            return [self.read(item) for item in arg]
        if not isinstance(arg, dict):
            return arg
        kind, name = next(iter(arg.items())) if len(arg) == 1 else ("", "")
        if kind == "value" and name in self._values:
            return self._values[name]
        if kind == "tensor" and name in self._program.tensors:
            if name not in self._tensors:
                self._tensors[name] = self._graph.get_attr(name)
            return self._tensors[name]
        if kind == "dtype" and name in DTYPES:
            return DTYPES[name]
        if kind == "memory_format":
            return torch.contiguous_format
        if kind == "float" and name in ("inf", "-inf", "nan"):
            return float(name)
        raise _contradiction(f"step {self._step.name} takes {json.dumps(arg)[:100]}")


def as_argument(value: float) -> Any:
    """A number as an argument of a step."""
    return value if not isinstance(value, float) or math.isfinite(value) else {"float": str(value)}


def _contradiction(what: str) -> BundleError:
    return BundleError(f"the exported program contradicts itself: {what}; export and import the network again")
