"""Bundles: a network with its weights and its card, saved to and loaded from a folder.

Weights are safetensors only: the format holds arrays and a JSON header, nothing that runs
(https://huggingface.co/docs/safetensors). Cards alone, without torch: `unet_core.card`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from unet_core.card import (
    CARD_NAME,
    WEIGHTS_NAME,
    ClassInfo,
    Decision,
    ModelCard,
    Normalization,
    bundle_digest,
    digest_of,
    list_bundles,
    locate,
    read_card,
)
from unet_core.errors import BundleError
from unet_core.models import build

__all__ = [
    "Bundle",
    "ClassInfo",
    "Decision",
    "ModelCard",
    "Normalization",
    "bundle_digest",
    "list_bundles",
    "load_bundle",
    "read_card",
    "save_bundle",
]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_STORED: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded model: `module` is float32, on the CPU, in eval mode; `digest` names what changes labels."""

    card: ModelCard
    module: nn.Module
    digest: str


def load_bundle(reference: str | Path) -> Bundle:
    """The bundle of a shipped name or a folder.

    Raises BundleError for a missing, truncated or non-finite bundle, or weights that don't fit the card.
    """
    folder = locate(reference)
    card = read_card(folder)
    weights = folder / WEIGHTS_NAME
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(
            f"weights {str(weights)!r} are not whole safetensors: {error}; copy or save the bundle again"
        ) from error
    # A network on the meta device has shapes but no memory: a card that lies about them costs nothing.
    with torch.device("meta"):
        expected = build(card.architecture, card.parameters).state_dict()
    _check(expected, tensors, weights)
    module = build(card.architecture, card.parameters)
    module.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()})
    return Bundle(card, module.float().eval().requires_grad_(requires_grad=False), digest_of(card, weights))


def save_bundle(
    folder: str | Path, card: ModelCard, module: nn.Module, stored: Literal["float32", "float16"] = "float32"
) -> None:
    """Write `module`'s weights and `card` as a bundle into `folder`, each file atomically, the card last.

    `stored="float16"` halves the file; the loaded model then computes with the rounded weights. Raises
    BundleError, with nothing written, where the weights don't fit the card or aren't finite as stored.
    """
    folder = Path(folder)
    tensors = {name: _as_stored(tensor, _STORED[stored]) for name, tensor in module.state_dict().items()}
    with torch.device("meta"):
        expected = build(card.architecture, card.parameters).state_dict()
    _check(expected, tensors, folder / WEIGHTS_NAME)
    folder.mkdir(parents=True, exist_ok=True)
    weights_new, card_new = folder / f"{WEIGHTS_NAME}.new", folder / f"{CARD_NAME}.new"
    weights_new.write_bytes(to_bytes(tensors))
    card_new.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    weights_new.replace(folder / WEIGHTS_NAME)
    card_new.replace(folder / CARD_NAME)


def _as_stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()


def _check(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], weights: Path) -> None:
    """Hold the stored tensors against the network that the card describes."""
    where = f"weights {str(weights)!r} don't fit the card"
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise BundleError(
            f"{where}: {len(missing)} tensors are missing ({_some(missing)}) and {len(surplus)} are unknown "
            f"({_some(surplus)}); correct architecture and parameters in {CARD_NAME}"
        )
    for name, tensor in tensors.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape:
            raise BundleError(
                f"{where}: {name} is {tuple(tensor.shape)}, the network needs {tuple(wanted.shape)}; "
                f"correct the parameters in {CARD_NAME}"
            )
        fits = tensor.dtype in _FLOATS if wanted.is_floating_point() else tensor.dtype == wanted.dtype
        if not fits:
            raise BundleError(
                f"{where}: {name} is stored as {tensor.dtype}, the network needs {wanted.dtype}; save it as that"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(
                f"weights {str(weights)!r}: {name} holds NaN or infinity, every label would be wrong; "
                "go back to an earlier checkpoint"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "none"
