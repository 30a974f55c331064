"""Call of an ONNX operation: its attributes and the values that it takes, and the refusal of what isn't known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_core.bundles.onnx.values import Array, Pixels, Value, Writer
from unet_core.errors import BundleError

REMEDY = "express it in convolutions, poolings, interpolations and pointwise operations, and export it again"


@dataclass(frozen=True, slots=True)
class Call:
    """One node. `shapes` are the shapes that the file gives its inputs, None where it leaves an extent open."""

    op: str
    label: str
    attributes: dict[str, Any]
    inputs: list[Value | None]
    outputs: int
    opset: int
    writer: Writer
    shapes: list[tuple[int | None, ...] | None]

    def refusal(self, why: str, remedy: str = REMEDY) -> BundleError:
        return BundleError(f"the ONNX graph calls {self.op} at {self.label!r}, and {why}: {remedy}")

    def pixels(self, index: int = 0) -> Pixels:
        """An input that depends on the tile."""
        value = self.inputs[index]
        if not isinstance(value, Pixels):
            raise self.refusal("it takes a tensor that is the same at every tile as its pixels")
        return value

    def array(self, index: int) -> Array | None:
        """An input that is known now, None where it is left out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, Pixels):
            raise self.refusal(f"its input {index} is computed from the pixels")
        return value

    def needed(self, index: int) -> Array:
        value = self.array(index)
        if value is None:
            raise self.refusal(f"its input {index} is missing")
        return value

    def items(self, index: int, attribute: str) -> list[Any] | None:
        """Numbers that older versions keep in an attribute and newer ones in an input."""
        value = self.array(index)
        if value is not None:
            return value.reshape(-1).tolist()
        found = self.attributes.get(attribute)
        return list(found) if found is not None else None

    def number(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def pair(self, name: str, default: int) -> list[int]:
        value = list(self.attributes.get(name) or (default, default))
        if len(value) != 2:
            raise self.refusal(f"its {name} are {value}: only planes of pixels are known")
        return value

    def scalar(self, index: int) -> float | None:
        """An input that is one number known now."""
        value = self.array(index)
        return None if value is None or value.size != 1 or value.dtype == object else float(value.reshape(()).item())


def is_plain(array: Array) -> bool:
    """True if every entry is a number known now."""
    return array.dtype != object or all(isinstance(entry, int | float | np.generic) for entry in array.reshape(-1))
