"""Any network, made into a bundle: its weights as safetensors, its graph as data, its card complete."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from unet_core.bounds import inferred
from unet_core.bundles.bundle import load_bundle, network_of, save_bundle
from unet_core.bundles.card import EXPORTED, ModelCard, read_card
from unet_core.bundles.exported import Program, module_of, read_archive
from unet_core.bundles.exported.exporting import export
from unet_core.bundles.exported.inner import inner_network
from unet_core.bundles.exported.schema import REMEDY
from unet_core.bundles.factory import call_factory, load_smp
from unet_core.bundles.facts import CardFacts, facts_from, facts_of, name_of
from unet_core.bundles.hub.fetch import fetch
from unet_core.bundles.hub.model import HubModel
from unet_core.bundles.onnx import OPEN_ONNX, OnnxNetwork, read_onnx
from unet_core.bundles.origin import Origin
from unet_core.bundles.packages import read_bioimageio, read_monai
from unet_core.bundles.weights import load_fitting, read_weights, without_prefix
from unet_core.errors import BundleError, FootprintError
from unet_core.models import build

Network = nn.Module
"""A network of torch, for those that don't import torch."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A network with its weights, and what is known of it.

    `program` is its graph where it isn't one of overtile's; `outputs` its channels; `left_out` the function at its
    end that the decision applies; `its_card` that of a bundle, which stays whole where no fact is given.
    """

    origin: Origin
    module: nn.Module
    architecture: str
    parameters: dict[str, Any]
    program: Program | None
    bands: int
    outputs: int
    known: CardFacts
    left_out: str | None = None
    its_card: ModelCard | None = None

    def card(self, facts: CardFacts) -> ModelCard:
        """The card, from what was given over what is known; raises BundleError for what is missing or doesn't fit."""
        if self.its_card is not None and facts == CardFacts():
            return self.its_card
        facts = facts.merged_with(self.known)
        if facts.bands is not None and len(facts.bands) != self.bands:
            raise BundleError(
                f"model {self.origin.reference!r} takes {self.bands} bands, {len(facts.bands)} are named "
                f"({', '.join(facts.bands)}); name each one"
            )
        return facts.card(self.origin.reference, self.architecture, self.parameters, self.outputs)

    def save(self, folder: Path, facts: CardFacts) -> ModelCard:
        """Write the bundle; raises BundleError, with nothing written, for facts or weights that don't fit."""
        card = self.card(facts)
        save_bundle(folder, card, self.module, program=self.program)
        return card


def import_model(origin: Origin, bands: int | None = None) -> Imported:
    """Load a network from wherever it is, and infer what it takes and gives.

    Args:
        origin: what was named.
        bands: how many bands it takes, for a factory whose network doesn't begin with a convolution.

    Raises:
        BundleError: the source can't be found, read or trusted, or its weights don't fit.
        FootprintError: its graph can't be followed from its output to its input.
    """
    origin.expect_trust()
    match origin.kind:
        case "hub":
            return _from_hub(origin, bands)
        case "bundle":
            bundle = load_bundle(origin.reference)
            found = _from_registry(origin, bundle.module, bundle.card.architecture, bundle.card.parameters)
            return replace(found, program=network_of(origin.reference, bundle.card)[1], known=facts_of(bundle.card))
        case "network":
            network = build(origin.reference, origin.parameters)
            return _from_registry(origin, _weighted(network, origin), origin.reference, origin.parameters)
        case "program":
            program, tensors = read_archive(Path(origin.reference))
        case "onnx":
            return _from_onnx(origin, read_onnx(Path(origin.reference)), CardFacts())
        case "bioimageio":
            described = read_bioimageio(Path(origin.reference))
            return _from_onnx(origin, described.network, described.facts)
        case "monai":
            bundled = read_monai(Path(origin.reference))
            program, tensors = export(bundled.network, bands or bundled.bands or _bands_of(bundled.network, origin))
            return replace(_from_program(origin, program, tensors), known=bundled.facts)
        case "smp":
            network = load_smp(Path(origin.reference))
            program, tensors = export(network, bands or _bands_of(network, origin))
        case "factory":
            network = _weighted(call_factory(origin.reference), origin)
            program, tensors = export(network, bands or _bands_of(network, origin))
    return _from_program(origin, program, tensors)


def _from_hub(origin: Origin, bands: int | None) -> Imported:
    """A model of the Hugging Face Hub; a bundle there keeps its whole card."""
    found = Origin(str(fetch(origin.reference)))
    imported = import_model(found, bands)
    if found.kind == "bundle":
        return replace(imported, origin=origin, its_card=read_card(found.reference))
    name = HubModel.parse(origin.reference).name
    named = CardFacts(name=imported.known.name or name_of(name))
    return replace(imported, origin=origin, known=named.merged_with(imported.known))


def import_network(network: nn.Module, bands: int | None = None) -> Imported:
    """The same of a network that is at hand, which stays as it is: a copy in evaluation mode is exported.

    Raises:
        BundleError: TorchScript, no values, torch can't export it, or its number of bands can't be seen.
        FootprintError: its graph can't be followed from its output to its input.
    """
    network = inner_network(network)
    origin = Origin(type(network).__name__)
    program, tensors = export(copy.deepcopy(network), bands or _bands_of(network, origin))
    return _from_program(origin, program, tensors)


def _from_program(origin: Origin, program: Program, tensors: dict[str, Tensor], remedy: str = REMEDY) -> Imported:
    program, left_out = program.without_last_activation()
    module = module_of(program).to_empty(device="cpu")
    module.load_state_dict({name: tensors[name] for name in module.state_dict()})
    parameters = {"graph": program.digest(), "bands": program.bands}
    outputs = _outputs(module, program.bands, is_fixed=program.fixed_px is not None, remedy=remedy)
    return Imported(origin, module, EXPORTED, parameters, program, program.bands, outputs, CardFacts(), left_out)


def _from_onnx(origin: Origin, network: OnnxNetwork, facts: CardFacts) -> Imported:
    """A graph of ONNX; an argmax or a softmax that ends it is the card's decision."""
    imported = _from_program(origin, network.program, network.tensors, OPEN_ONNX)
    left_out = network.left_out or imported.left_out
    rules = {"argmax": "argmax", "softmax": "argmax", "sigmoid": "threshold"}
    decision = facts_from({"decision": rules[left_out]} if left_out in rules and imported.outputs > 1 else {})
    return replace(imported, left_out=left_out, known=facts.merged_with(decision))


def _from_registry(origin: Origin, module: nn.Module, architecture: str, parameters: dict[str, Any]) -> Imported:
    bands = parameters.get("bands") or _bands_of(module, origin)
    outputs = _outputs(module, bands, is_fixed=False)
    return Imported(origin, module, architecture, parameters, None, bands, outputs, CardFacts())


def _weighted(network: nn.Module, origin: Origin) -> nn.Module:
    """The network with the weights that were named."""
    if origin.weights is None:
        return network
    tensors = without_prefix(read_weights(origin.weights), network.state_dict())
    load_fitting(network, tensors, origin.weights, f"give the weights of {origin.reference}, or correct the network")
    return network


def _bands_of(network: nn.Module, origin: Origin) -> int:
    """The bands that the first convolution takes."""
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None:
        raise BundleError(
            f"model {origin.reference!r} does not begin with a convolution, so its number of bands can't be seen; "
            f"give --bands"
        )
    return first.in_channels


def _outputs(module: nn.Module, bands: int, *, is_fixed: bool, remedy: str = REMEDY) -> int:
    """The channels of the logits, from a network whose graph can be followed."""
    try:
        network = inferred(module, bands)
    except FootprintError as error:
        raise FootprintError(f"{error}; {remedy}" if is_fixed else str(error)) from error
    baked = [f"{op.layer}: {op.problem}" for op in network.operators.values() if "extent of" in (op.problem or "")]
    if is_fixed and baked:
        raise BundleError(
            f"the program was exported for one height and width, and has them baked in ({'; '.join(baked)}): on other "
            f"tiles it would be another network; {remedy}"
        )
    return cast("int", network.output.meta["shape"][1])
