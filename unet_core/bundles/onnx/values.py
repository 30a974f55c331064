"""Values of an ONNX graph while it is translated, and the writer of the program's steps.

A value is pixels (what depends on the tile), or an array known now. ONNX computes with extents in tensors of integers;
here these are arrays whose entries are numbers, or extents that the program computes from the tile at hand.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unet_core.bundles.exported.graph import ProgramStep, TensorKind, as_argument
from unet_core.bundles.exported.operators import ITEM
from unet_core.errors import BundleError

_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Pixels:
    """A result that depends on the tile. `source` and `order` are those of a transposition, which another may undo."""

    name: str
    source: Pixels | None = None
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """A number that the program computes from the tile's extents."""

    name: str
    writer: Writer = field(repr=False, compare=False)
    is_float: bool = False

    def __add__(self, other: Any) -> Any:
        return self.writer.computed("_operator.add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self.writer.computed("_operator.add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self.writer.computed("_operator.sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.writer.computed("_operator.sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return self.writer.computed("_operator.mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.writer.computed("_operator.mul", other, self)

    def __neg__(self) -> Any:
        return self.writer.computed("_operator.neg", self)


Array = NDArray[Any]
Value = Pixels | Array


class Writer:
    """Writes the steps and the tensors of a program."""

    def __init__(self) -> None:
        self.steps: list[ProgramStep] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self.layer = ""
        self._computed: dict[str, Extent] = {}
        self._kept: dict[int, str] = {}
        self._alive: list[Array] = []

    def call(self, op: str, *args: Any, **options: Any) -> Pixels:
        """One call of an ATen operation on pixels."""
        return self._step(f"torch.ops.aten.{op}", op.partition(".")[0].strip("_"), args, options)

    def item(self, several: Pixels, index: int) -> Pixels:
        """One of the results of a call that gives several."""
        return self._step(ITEM, ITEM, (several, index), {})

    def _step(self, op: str, word: str, args: tuple[Any, ...], options: dict[str, Any]) -> Pixels:
        name = f"{word}_{len(self.steps)}"
        written = [self.argument(arg) for arg in args]
        self.steps.append(ProgramStep(name=name, op=op, args=written, options=options, layer=self.layer))
        return Pixels(name)

    def computed(self, op: str, *numbers: Any) -> Any:
        """Arithmetic on extents; the same one is written once."""
        args = [self.argument(number) for number in numbers]
        key = f"{op}{args}"
        if key not in self._computed:
            name = f"extent_{len(self.steps)}"
            self.steps.append(ProgramStep(name=name, op=op, args=args, layer=self.layer))
            floats = op.endswith("truediv") or any(_is_float(number) for number in numbers)
            is_float = floats and op not in ("math.floor", "math.ceil", "math.trunc")
            self._computed[key] = Extent(name, self, is_float)
        return self._computed[key]

    def size(self, pixels: Pixels, dim: int) -> Extent:
        """One extent of pixels."""
        return cast("Extent", self.computed("torch.ops.aten.sym_size.int", pixels, dim))

    def argument(self, value: Any) -> Any:
        """A value as an argument of a step."""
        match value:
            case Pixels() | Extent():
                return {"value": value.name}
            case np.ndarray():
                return {"tensor": self._tensor(cast("Array", value))}
            case list() | tuple():
                return [self.argument(item) for item in cast("list[Any]", value)]
            case np.generic():
                return as_argument(value.item())
            case _:
                return as_argument(value)

    def name_array(self, array: Array, name: str) -> Array:
        """Keep the name that a stored tensor has in the graph."""
        taken = set(self._kept.values())
        parents = {kept[:at] for kept in taken for at in range(len(kept)) if kept[at] == "."}
        inner = {name[:at] for at in range(len(name)) if name[at] == "."}
        if _NAME.fullmatch(name) and len(name) < _LONGEST and name not in taken | parents and not inner & taken:
            self._keep(array, name)
        return array

    def kinds(self) -> dict[str, TensorKind]:
        """Descriptions of its tensors."""
        return {
            name: TensorKind(shape=tuple(tensor.shape), dtype=str(tensor.dtype).partition(".")[2], is_parameter=True)
            for name, tensor in self.tensors.items()
        }

    def _keep(self, array: Array, name: str) -> None:
        self._kept[id(array)] = name
        self._alive.append(array)

    def _tensor(self, array: Array) -> str:
        if array.dtype == object or array.dtype.kind not in "f":
            raise BundleError(
                f"the ONNX graph computes pixels with {array.dtype} numbers at {self.layer!r}: only float32 is known "
                f"there; export the network in float32"
            )
        if id(array) not in self._kept:
            self._keep(array, f"constant_{len(self._kept)}")
        name = self._kept[id(array)]
        if name not in self.tensors:
            self.tensors[name] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32).copy())
        return name


def divided(writer: Writer, one: Any, other: Any) -> Any:
    """ONNX's division: of integers towards zero."""
    if isinstance(one, Extent) or isinstance(other, Extent):
        quotient = writer.computed("_operator.truediv", one, other)
        is_float = _is_float(one) or _is_float(other)
        return quotient if is_float else writer.computed("math.trunc", quotient)
    return one / other if _is_float(one) or _is_float(other) else math.trunc(one / other)


def rounded(writer: Writer, number: Any, op: str) -> Any:
    """`math.floor`, `math.ceil` or `math.trunc`, of whole numbers themselves."""
    if isinstance(number, Extent):
        return writer.computed(op, number) if number.is_float else number
    return getattr(math, op.partition(".")[2])(number)


def _is_float(number: object) -> bool:
    return number.is_float if isinstance(number, Extent) else isinstance(number, float | np.floating)
