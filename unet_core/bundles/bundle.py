"""Bundles: a network with its weights and its card, saved to and loaded from a folder.

Weights are safetensors only: the format holds arrays and a JSON header, nothing that runs
(https://huggingface.co/docs/safetensors). Cards alone, without torch: `unet_core.bundles.card`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from unet_core.bundles.card import (
    CARD_NAME,
    EXPORTED,
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
from unet_core.bundles.exported import Program, module_of, read_program, write_program
from unet_core.bundles.exported.graph import GRAPH_NAME
from unet_core.bundles.weights import copied, expect_fit, read_safetensors
from unet_core.errors import BundleError
from unet_core.files import write_whole
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
    "network_of",
    "read_card",
    "save_bundle",
]

_REMEDY = f"correct architecture and parameters in {CARD_NAME}"
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
    tensors = read_safetensors(weights)
    module, _ = network_of(folder, card)
    expected = module.state_dict()
    expect_fit(expected, tensors, weights, _REMEDY)
    values = {name: copied(tensor).to(expected[name].dtype) for name, tensor in tensors.items()}
    module = _with_values(module, values, card)
    return Bundle(card, module.float().eval().requires_grad_(requires_grad=False), digest_of(card, weights))


def network_of(reference: str | Path, card: ModelCard) -> tuple[nn.Module, Program | None]:
    """The network that a bundle's card describes, and its program where it is one; without values.

    On the meta device a network has shapes but no memory: a card that lies about them costs nothing. Raises
    BundleError for an unknown network, or a graph that isn't the one that the card names.
    """
    if card.architecture != EXPORTED:
        with torch.device("meta"):
            return build(card.architecture, card.parameters), None
    program = read_program(locate(reference) / GRAPH_NAME, str(card.parameters.get("graph")))
    if program.bands != len(card.bands):
        raise BundleError(
            f"bundle {str(reference)!r} names {len(card.bands)} bands and its graph takes {program.bands}: "
            f"import the network again"
        )
    return module_of(program), program


def _with_values(module: nn.Module, values: dict[str, Tensor], card: ModelCard) -> nn.Module:
    """The same network with these values, and whatever its constructor computes beside them."""
    held = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    if card.architecture != EXPORTED and not held <= values.keys():
        module = build(card.architecture, card.parameters)  # else no value is drawn at random first
    module.load_state_dict(values, assign=True)
    return module


def save_bundle(
    folder: str | Path,
    card: ModelCard,
    module: nn.Module,
    stored: Literal["float32", "float16"] = "float32",
    program: Program | None = None,
) -> None:
    """Write `module`'s weights and `card` as a bundle into `folder`, each file atomically, the card last.

    `stored="float16"` halves the file; the loaded model then computes with the rounded weights. `program` is the
    network where it isn't one of overtile's. Raises BundleError, with nothing written, where the weights don't fit
    the card or aren't finite as stored.
    """
    folder = Path(folder)
    tensors = {name: _as_stored(tensor, _STORED[stored]) for name, tensor in module.state_dict().items()}
    with torch.device("meta"):
        network = build(card.architecture, card.parameters) if program is None else module_of(program)
    expect_fit(network.state_dict(), tensors, folder / WEIGHTS_NAME, _REMEDY)
    folder.mkdir(parents=True, exist_ok=True)
    if program is not None:
        write_program(program, folder / GRAPH_NAME)
    write_whole(folder / WEIGHTS_NAME, lambda file: file.write(to_bytes(tensors)))
    write_whole(folder / CARD_NAME, lambda file: file.write(f"{card.model_dump_json(indent=2)}\n".encode()))


def _as_stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
