"""Names of the networks with a sentence on each, read from their source: a list of them needs no torch."""

from __future__ import annotations

import ast
from pathlib import Path

_MODELS = Path(__file__).parents[1] / "models"


def network_summaries() -> dict[str, str]:
    """The first paragraph of each network's docstring, by the name that a card gives it."""
    described = {
        node.name: " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
        for file in _MODELS.glob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    return {name: described[network] for name, network in _registered().items()}


def _registered() -> dict[str, str]:
    """The class of each name, from the literal `MODELS`."""
    for node in ast.parse((_MODELS / "__init__.py").read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.target) == "MODELS"
        ):
            names = map(ast.literal_eval, filter(None, node.value.keys))
            return dict(zip(names, map(ast.unparse, node.value.values), strict=True))
    raise AssertionError("unet_core.models has no literal MODELS")
