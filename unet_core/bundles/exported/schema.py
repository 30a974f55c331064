"""Translation of torch's JSON of an exported graph into the steps of a program.

Only names, numbers and lists of them are looked at. Expressions of symbolic extents, which torch would evaluate,
are not needed: every extent that the graph uses is the result of one of its own calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unet_core.bundles.exported.graph import Program, ProgramStep, TensorKind, as_argument
from unet_core.bundles.exported.operators import ITEM, is_check, target_of, writes_in_place
from unet_core.errors import BundleError

REMEDY = (
    "export it with open height and width: torch.export.export(model, (example,), "
    "dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)), with a batch of 2 as example"
)
_POSITIONAL = 1
_DTYPE_NAMES = {1: "uint8", 2: "int8", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16"}
_CONTIGUOUS = 1
# Where a tensor lies is the predictor's affair.
_IGNORED = ("device", "layout", "pin_memory")


@dataclass(frozen=True, slots=True)
class Draft:
    """A program before its tensors are read: `tensors` are the names of those that it uses."""

    input: str
    output: str
    bands: int
    fixed_px: tuple[int, int] | None
    steps: list[ProgramStep]
    tensors: list[str]

    def program(self, kinds: dict[str, TensorKind]) -> Program:
        return Program(
            input=self.input,
            output=self.output,
            bands=self.bands,
            fixed_px=self.fixed_px,
            tensors=kinds,
            steps=self.steps,
        )


def translate(graph_module: dict[str, Any], name: str) -> Draft:
    """The steps of a serialized graph.

    Raises BundleError for several inputs or outputs, extents that are baked into the graph, training mode, or calls
    that aren't known to be harmless.
    """
    graph, signature = graph_module["graph"], graph_module["signature"]
    inputs, tensors = _inputs(signature["input_specs"])
    outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
    if len(inputs) != 1 or len(signature["output_specs"]) != 1 or len(outputs) != 1 or "as_tensor" not in outputs[0]:
        raise BundleError(
            f"program {name!r} has {len(inputs)} inputs and {len(signature['output_specs'])} outputs: a network takes "
            f"one batch of tiles and gives one batch of logits; wrap it so that its forward does, in eval mode"
        )
    shape = graph["tensor_values"][inputs[0]]["sizes"]
    if len(shape) != 4 or "as_int" not in shape[1]:
        raise BundleError(f"program {name!r} does not take (batch, band, y, x) tiles of a fixed number of bands")
    fixed_px = None
    if "as_int" in shape[2] or "as_int" in shape[3]:
        fixed_px = _hint(shape[2]), _hint(shape[3])
    reader = _Reader(name, graph["tensor_values"], tensors, is_fixed=fixed_px is not None)
    steps = [step for node in graph["nodes"] if not is_check(node["target"]) for step in reader.steps(node)]
    output = outputs[0]["as_tensor"]["name"]
    steps = used_steps(steps, output)
    used = named_in([step.args for step in steps] + [[*step.options.values()] for step in steps], "tensor")
    return Draft(inputs[0], output, shape[1]["as_int"], fixed_px, steps, sorted(used))


def _inputs(specs: list[dict[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """The names of the user's inputs, and the tensors by the names that the graph gives them."""
    inputs: list[str] = []
    tensors: dict[str, str] = {}
    for spec in specs:
        kind, entry = next(iter(spec.items()))
        if kind == "user_input":
            inputs += [entry["arg"]["as_tensor"]["name"]] if "as_tensor" in entry["arg"] else ["a number"]
        elif kind in ("parameter", "buffer", "tensor_constant"):
            tensors[entry["arg"]["name"]] = entry[f"{kind}_name"]
        else:
            raise BundleError(
                f"the exported program takes a {kind.replace('_', ' ')}: only tensors are read from a file; export a "
                f"network of tensors alone"
            )
    return inputs, tensors


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads nodes of one graph."""

    program: str
    values: dict[str, Any]
    tensors: dict[str, str]
    is_fixed: bool

    def steps(self, node: dict[str, Any]) -> list[ProgramStep]:
        """One call, and the picks of its results where there are several."""
        op: str = node["target"]
        target_of(op)
        args = [self._argument(entry["arg"]) for entry in node["inputs"] if entry["kind"] == _POSITIONAL]
        options = {
            entry["name"]: self._argument(entry["arg"])
            for entry in node["inputs"]
            if entry["kind"] != _POSITIONAL and entry["name"] not in _IGNORED
        }
        self._expect_evaluation(op, node)
        if self.is_fixed:
            self._expect_no_baked_extent(op, node)
        outputs = node["outputs"]
        layer = _layer(node["metadata"].get("nn_module_stack", ""))
        if len(outputs) == 1 and "as_tensors" not in outputs[0]:
            return [ProgramStep(name=_result(outputs[0]), op=op, args=args, options=options, layer=layer)]
        results = outputs[0]["as_tensors"] if "as_tensors" in outputs[0] else [entry["as_tensor"] for entry in outputs]
        name = f"{node['name'] or results[0]['name']}__all"
        picks = [
            ProgramStep(name=result["name"], op=ITEM, args=[{"value": name}, index], layer=layer)
            for index, result in enumerate(results)
            if result["name"]
        ]
        return [ProgramStep(name=name, op=op, args=args, options=options, layer=layer), *picks]

    def _argument(self, arg: dict[str, Any]) -> Any:
        kind, value = next(iter(arg.items()))
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self._value(value["name"])
            case "as_tensors":
                return [self._value(entry["name"]) for entry in value]
            case "as_optional_tensor":
                return self._argument(value)
            case "as_int" | "as_bool" | "as_string" | "as_ints" | "as_bools":
                return value
            case "as_float":
                return as_argument(float(value))
            case "as_floats":
                return [as_argument(float(entry)) for entry in value]
            case "as_sym_int" | "as_sym_float" | "as_sym_bool":
                return self._symbol(value)
            case "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
                return [self._symbol(entry) for entry in value]
            case "as_scalar_type":
                return {"dtype": _DTYPE_NAMES[value]}
            case "as_memory_format":
                return {"memory_format": "contiguous"} if value == _CONTIGUOUS else None
            case "as_layout" | "as_device":
                return None
            case _:
                raise BundleError(
                    f"program {self.program!r} passes {kind.removeprefix('as_').replace('_', ' ')} to an operation: "
                    f"only tensors and numbers are read from a file"
                )

    def _value(self, name: str) -> dict[str, str]:
        return {"tensor": self.tensors[name]} if name in self.tensors else {"value": name}

    def _symbol(self, entry: dict[str, Any]) -> Any:
        return {"value": entry["as_name"]} if "as_name" in entry else as_argument(next(iter(entry.values())))

    def _expect_evaluation(self, op: str, node: dict[str, Any]) -> None:
        given = {entry["name"]: entry["arg"] for entry in node["inputs"]}
        in_training = any(given.get(key, {}).get("as_bool") for key in ("training", "train"))
        if in_training and ("dropout" in op or "batch_norm" in op):
            raise BundleError(
                f"program {self.program!r} was exported in training mode ({node['name']}): its labels would be random "
                f"or follow the tile; call model.eval() before torch.export.export"
            )

    def _expect_no_baked_extent(self, op: str, node: dict[str, Any]) -> None:
        """Refuse an extent of the example that became a number: other tiles would be computed otherwise."""
        given = {entry["name"]: entry["arg"] for entry in node["inputs"]}
        size = given.get("output_size", {}) if "upsample" in op or "max_unpool" in op else {}
        kernel = given.get("kernel_size", {}).get("as_ints") if "pool" in op else None
        source = given.get("self", {}).get("as_tensor", {}).get("name", "")
        if kernel is not None and source in self.values:
            extents = [_hint(extent) for extent in self.values[source]["sizes"][2:]]
            if [kernel[0], kernel[-1]] == extents:
                size = given["kernel_size"]
        if "as_ints" in size:
            raise BundleError(
                f"program {self.program!r} has the extent {size['as_ints']} of its example baked into {node['name']}: "
                f"on tiles of another extent it would be another network; {REMEDY}"
            )


def _hint(extent: dict[str, Any]) -> int:
    return extent["as_int"] if "as_int" in extent else extent["as_expr"]["hint"]["as_int"]


def _result(output: dict[str, Any]) -> str:
    kind, value = next(iter(output.items()))
    return value["name"] if kind == "as_tensor" else value["as_name"]


def _layer(stack: str) -> str:
    """The innermost module's path: the last entry of "key,path,class;key,path,class"."""
    parts = stack.rsplit(";", 1)[-1].split(",")
    return parts[1] if len(parts) > 1 else ""


def used_steps(steps: list[ProgramStep], output: str) -> list[ProgramStep]:
    """Values that the output depends on; a call that writes in place counts although nobody asks for its result."""
    wanted, kept = {output}, list[ProgramStep]()
    for step in reversed(steps):
        names = named_in([step.args, [*step.options.values()]], "value")
        if step.name in wanted or (writes_in_place(step.op) and names & wanted):
            kept.append(step)
            wanted |= names
    return kept[::-1]


def named_in(arg: Any, kind: str) -> set[str]:
    """The values or tensors that arguments name."""
    if isinstance(arg, dict):
        return {arg[kind]} if kind in arg else set()
    if isinstance(arg, list):
        return set().union(*(named_in(item, kind) for item in arg))
    return set()
