"""The calls that an exported program may make.

Anything that names a function by a string can name the wrong one (`aten::from_file` opens files), so a program may
call the operations that bounds inference knows, arithmetic on extents, and nothing else.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from functools import wraps
from keyword import iskeyword
from typing import Any, cast

import torch
from torch import fx
from torch.nn import functional

from unet_core.bounds.rules import RULES
from unet_core.bounds.torch_calls import GLOBAL, name_of
from unet_core.errors import BundleError

Target = Callable[..., Any]

_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)")
_LARGEST = 2**53


def _bounded(function: Target) -> Target:
    """Arithmetic on extents alone: products of numbers without end, or of texts, would fill the memory."""

    @wraps(function)
    def computed(*numbers: Any) -> Any:
        for number in numbers:
            if isinstance(number, (torch.SymInt, torch.SymFloat)):
                continue  # an extent that torch.export leaves open, when an imported network is exported again
            if not isinstance(number, (int, float)) or abs(number) > _LARGEST:
                raise ValueError(f"{function.__name__} of {str(number)[:40]} is no arithmetic on extents")
        return function(*numbers)

    return computed


_ARITHMETIC: dict[str, Target] = {
    **{
        f"_operator.{name}": _bounded(getattr(operator, name))
        for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
    },
    **{f"math.{name}": _bounded(getattr(math, name)) for name in ("trunc", "ceil", "floor")},
    **{
        f"torch.{name}": _bounded(getattr(torch, name))
        for name in ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not")
    },
    "torch.ops.aten.sym_size.int": torch.ops.aten.sym_size.int,
}
ITEM = "item"
"""Picks one of the tensors that a call returned."""

_CHECKS = re.compile(r"torch\.ops\.aten\.(_assert_\w+|sym_constrain_range\w*)\.\w+")
_MAKERS = frozenset({"zeros_like", "ones_like", "full_like", "lift_fresh_copy"})


def target_of(op: str) -> Target:
    """The function that `op` names; raises BundleError for one that isn't known to be harmless."""
    if op == ITEM:
        return operator.getitem
    if op in _ARITHMETIC:
        return _ARITHMETIC[op]
    named = _ATEN.fullmatch(op)
    packet = getattr(torch.ops.aten, named[1], None) if named else None
    if named is None or packet is None or named[2] not in packet.overloads():
        raise _refusal(op)
    target = getattr(packet, named[2])
    probe = fx.Graph().call_function(target)
    name = name_of(probe)
    if name not in RULES and name not in GLOBAL and named[1] not in _MAKERS:
        raise _refusal(op)
    return cast("Target", target)


def expect_options(op: str, target: Target, options: Iterable[str]) -> None:
    """Refuse options that the operation doesn't have: torch writes their names into Python code and runs it."""
    schema = getattr(target, "_schema", None)
    known = {argument.name for argument in schema.arguments} if schema is not None else set[str]()
    unknown = [name for name in options if name not in known or iskeyword(name)]
    if unknown:
        raise BundleError(
            f"the exported program gives {op!r} the option {unknown[0][:60]!r}, which it does not have: it is not run; "
            f"export and import the network again"
        )


def idiomatic(op: str, target: Target) -> tuple[Target, dict[str, Any]]:
    """The form of a call that later stages fuse, with the arguments that it adds."""
    if op in ("torch.ops.aten.relu.default", "torch.ops.aten.relu_.default"):
        return functional.relu, {"inplace": op.endswith("relu_.default")}
    return target, {}


def is_check(op: str) -> bool:
    """True if a call only compares extents with those that the program was exported for."""
    return _CHECKS.fullmatch(op) is not None


def writes_in_place(op: str) -> bool:
    """True if a call changes its first argument."""
    named = _ATEN.fullmatch(op)
    return named is not None and named[1].endswith("_")


def _refusal(op: str) -> BundleError:
    return BundleError(
        f"the exported program calls {op!r}, which is not among the operations that overtile knows: it is not run; "
        f"express the network in torch's convolutions, poolings, interpolations and pointwise operations, and export "
        f"it without run_decompositions"
    )
