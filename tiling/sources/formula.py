"""Formula of bands: arithmetic on their values, pixel by pixel, such as `(nir-red)/(nir+red)`.

Numbers, names, `+ - * /` and brackets are all that it can hold. It is parsed, checked and computed here; nothing of it
is ever run as code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from tiling.errors import PlanError

Values = npt.NDArray[np.float64]

MAX_CHARACTERS = 1000
_MAX_DEPTH = 64
_SIGNS = re.compile(r"[-+*/()]")
_NUMBERED = re.compile(r"b([1-9]\d{0,4})")
_TWO: dict[type[ast.operator], Callable[[Values, Values], Values]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}


def is_formula(text: str) -> bool:
    """True if a text that is no band's name is arithmetic."""
    return bool(_SIGNS.search(text)) and any(char.isalpha() for char in text)


def by_number(text: str, numbers: Mapping[str, int]) -> str:
    """A formula with `b1`, `b2`, … in place of names, of which each, in small letters, has its number from 0.

    Where no band is called so, `b3` is the third band already.

    Raises:
        PlanError: it holds what is no arithmetic, or a name that no band has.
    """
    tree = _parsed(text)
    takes_numbers = not any(_NUMBERED.fullmatch(name) for name in numbers)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            name = node.id.casefold()
            numbered = _NUMBERED.fullmatch(name) if takes_numbers else None
            number = int(numbered[1]) - 1 if numbered is not None else numbers.get(name)
            if number is None or number not in numbers.values():
                raise PlanError(
                    f"the formula {text!r} names {node.id!r}, and the bands are {', '.join(numbers)}; correct the name"
                    + (", or write b1 for the first band" if takes_numbers else "")
                )
            node.id = f"b{number + 1}"
    if not bands_of(written := ast.unparse(tree)):
        raise PlanError(f"the formula {text!r} names no band; write one of {', '.join(numbers)} into it")
    return written


def bands_of(text: str) -> tuple[int, ...]:
    """Numbers, from 0, of the bands in a formula by number."""
    found = {_number(node.id, text) for node in ast.walk(_parsed(text)) if isinstance(node, ast.Name)}
    return tuple(sorted(found))


def computed(text: str, bands: Mapping[int, Values]) -> Values:
    """The values of a formula by number; what has none, such as a share of 0, is not finite.

    Raises:
        PlanError: as `by_number` does.
    """
    with np.errstate(all="ignore"):
        return _computed(_parsed(text), text, bands)


def _computed(node: ast.expr, text: str, bands: Mapping[int, Values]) -> Values:
    if isinstance(node, ast.Name):
        return bands[_number(node.id, text)]
    if isinstance(node, ast.Constant):
        return np.asarray(node.value, np.float64)
    if isinstance(node, ast.UnaryOp):
        value = _computed(node.operand, text, bands)
        return -value if isinstance(node.op, ast.USub) else value
    assert isinstance(node, ast.BinOp)
    return _TWO[type(node.op)](_computed(node.left, text, bands), _computed(node.right, text, bands))


def _parsed(text: str) -> ast.expr:
    """A formula's tree, which holds nothing but what a formula may."""
    if len(text) > MAX_CHARACTERS:
        raise PlanError(f"a formula of {len(text)} characters is over {MAX_CHARACTERS}; write a shorter one")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise PlanError(f"the formula {text!r} can't be read ({why}); write it as (nir-red)/(nir+red)") from error
    _expect_arithmetic(tree, text, 0)
    return tree


def _expect_arithmetic(node: ast.expr, text: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise PlanError(f"the formula {text[:100]!r} is nested deeper than {_MAX_DEPTH}; write it flatter")
    inner: list[ast.expr] = []
    if isinstance(node, ast.BinOp) and type(node.op) in _TWO:
        inner = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = [node.operand]
    elif isinstance(node, ast.Constant) and type(node.value) in {int, float} and abs(node.value) < 1e300:  # type: ignore[arg-type]
        return
    elif not isinstance(node, ast.Name):
        found = ast.unparse(node)[:60] if depth < _MAX_DEPTH else ""
        raise PlanError(f"the formula {text!r} holds {found!r}; bands, numbers, + - * / and brackets are all it may")
    for each in inner:
        _expect_arithmetic(each, text, depth + 1)


def _number(name: str, text: str) -> int:
    numbered = _NUMBERED.fullmatch(name)
    if numbered is None:
        raise PlanError(f"the formula {text!r} of a run names {name!r}, which is no band's number; start the run anew")
    return int(numbered[1]) - 1
