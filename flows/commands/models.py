"""`overtile models`: lists models and networks, shows one, exports one for other programs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.commands.completion import complete_models, complete_models_and_networks
from flows.commands.output import console, output, print_json
from flows.errors import FlowError
from flows.reporting.escaping import PlainConsole, plain
from tiling.storage.place import pasted

if TYPE_CHECKING:
    from unet_core.bounds import Footprint
    from unet_core.bundles.card import ModelCard

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A shipped model's name, a bundle's folder, a model that brings its description (hf:OWNER/NAME@COMMIT, a "
        "bioimage.io package, a MONAI bundle), or the name of a network.",
        autocompletion=complete_models_and_networks,
    ),
]
BundleArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A shipped model's name, a bundle's folder, or a model that brings its description "
        "(hf:OWNER/NAME@COMMIT, a bioimage.io package, a MONAI bundle).",
        autocompletion=complete_models,
    ),
]
TargetOption = Annotated[
    Path, typer.Option("--out", "-o", help="A .pt2 of torch.export, or a folder: a bundle to change.")
]

BANDS, CLASSES = 3, 2
"""Of a network that is shown without weights."""


def group_command(context: typer.Context) -> None:
    """Models and networks: list them, show one, import one of your own, export one."""
    if context.invoked_subcommand is None:
        list_command()


def list_command() -> None:
    """List the models that come with overtile, and the networks that a model can be made of."""
    from flows.commands.facts import model_facts
    from unet_core.bundles.card import list_bundles
    from unet_core.bundles.networks import network_summaries

    out, cards, summaries = console(), list_bundles(), network_summaries()
    # What else `show` tells would leave the description no room at 80 columns.
    table = Table("model", "classes", "pixel size", "what it finds", box=None)
    for card in cards:
        classes = ", ".join(item.name for item in card.classes[1:])
        table.add_row(*map(plain, (card.name, classes, _pixel_size(card), card.description)))
    out.print(table)
    networks = Table("network", "what it is; give weights with overtile models import, or train it", box=None)
    for name, summary in summaries.items():
        networks.add_row(name, plain(summary))
    out.print()
    out.print(networks)
    named = [{"name": name, "kind": "network", "description": each} for name, each in summaries.items()]
    print_json({"models": [*map(model_facts, cards), *named]})


def show_command(model: ModelArgument) -> None:
    """Show a model's pixel size, scores, training data and licence, or a network; with the exact halo and stride."""
    from unet_core.bundles.card import list_bundles
    from unet_core.models import MODELS

    if model in MODELS and model not in {card.name for card in list_bundles()} and not Path(model).is_dir():
        _show_network(model)
    else:
        _show_bundle(model)


def inspect_command(bundle: BundleArgument) -> None:
    """Show a model; the same as `show`."""
    _show_bundle(bundle)


def _show_bundle(model: str) -> None:
    from flows.run.custom_model import as_bundle

    with as_bundle(model) as folder:
        _show_bundle_of(folder)


def _show_bundle_of(reference: str) -> None:
    from flows.commands.terminal import print_model
    from unet_core.bundles.card import read_card

    out, card = console(), read_card(reference)
    if output().is_json:
        print_json(bundle_facts(reference))
        return
    table = Table.grid(padding=(0, 2))
    for name, text in _card_rows(card):
        table.add_row(name, plain(text))
    out.print(table)
    print_model(out, reference)


def bundle_facts(reference: str) -> dict[str, Any]:
    """Facts of a bundle as JSON has them; of a network without finite bounds no halo, and what has none."""
    from flows.commands.facts import model_facts
    from unet_core.bounds import footprint
    from unet_core.bundles.bundle import load_bundle
    from unet_core.errors import FootprintError

    bundle = load_bundle(reference)
    card = bundle.card
    facts = {"digest": bundle.digest, "architecture": card.architecture, "training": card.training}
    try:
        found = _footprint_facts(footprint(bundle.module, len(card.bands)))
    except FootprintError as error:
        found = {"stride_px": None, "halo_px": None, "unbounded": str(error)}
    return {**model_facts(card), **facts, **found}


def _card_rows(card: ModelCard) -> list[tuple[str, str]]:
    """Rows that a person asks of a model first."""
    training: dict[str, Any] = card.training
    rows = [
        ("classes", ", ".join(item.name for item in card.classes)),
        ("bands", f"{', '.join(card.bands)}; {card.dtype}"),
        ("pixel size", _pixel_size(card)),
        ("licence", card.license),
        ("trained on", str(training.get("data", "not stated"))),
    ]
    if "labels" in training:
        rows.append(("its labels", str(training["labels"])))
    return rows + _scores(training)


def _scores(training: dict[str, Any]) -> list[tuple[str, str]]:
    """Scores on images that nothing was chosen on come first, and are what documents give; then those chosen on."""
    reported = training.get("reported", {})
    chosen = "images for choosing" if reported else "validation images"
    of_pixels = {"mean IoU": "mean_iou", "mean Dice": "mean_dice"}
    figures = {**of_pixels, "mean IoU of objects": "iou", "objects found (AP at IoU 0.5)": "ap50"}
    rows = [(f"scores: {group}", f"{_figures(score, figures)} held-back images") for group, score in reported.items()]
    figures = {**of_pixels, "AP of objects at IoU 0.5": "ap50"}
    return rows + [
        (f"{'while choosing' if reported else 'scores'}: {group}", f"{_figures(score, figures)} {chosen}")
        for group, score in training.get("validation", {}).items()
    ]


def _figures(score: dict[str, Any], figures: dict[str, str]) -> str:
    known = [f"{name} {score[key]:.3f}" for name, key in figures.items() if isinstance(score.get(key), float)]
    return f"{', '.join(known)} on {score.get('images', '?')}"


def _pixel_size(card: ModelCard) -> str:
    from tiling.geometry import per_px

    if card.pixel_size_um is not None:
        return per_px((card.pixel_size_um, card.pixel_size_um))
    return "any" if card.plausible_um is None else f"{card.plausible_um[0]:g} to {card.plausible_um[1]:g} µm/px"


def _show_network(name: str) -> None:
    """A network as its constructor makes it, for three bands and two classes where it asks for them."""
    from unet_core.bounds import footprint
    from unet_core.bundles.networks import network_summaries
    from unet_core.models import MODELS, build_without_values

    parameters = _parameters(MODELS[name])
    given = {key: value for key, value in (("bands", BANDS), ("classes", CLASSES)) if key in parameters}
    module = build_without_values(name, given)
    found, summary = footprint(module, BANDS), network_summaries()[name]
    weights = sum(each.numel() for each in module.parameters())
    table = Table.grid(padding=(0, 2))
    for row in (
        ("network", f"{name}: {summary}"),
        ("parameters", ", ".join(f"{key}={value}" for key, value in parameters.items())),
        ("weights", f"{weights:,} for {BANDS} bands and {CLASSES} classes; none come with it"),
        ("stride", f"{found.stride[0]} x {found.stride[1]} px"),
        ("halo", ", ".join(f"{side} {px} px" for side, px in zip(_SIDES, found.halo.sides, strict=True))),
    ):
        table.add_row(*map(plain, row))
    console().print(table)
    needed = " ".join(f"--parameter {key}={value}" for key, value in given.items())
    command = f"overtile models import {name} {needed} --weights WEIGHTS --card CARD --out NEW"
    console().print(f"use it: {command}", soft_wrap=True)  # whole, for a table would break it into lines
    facts = {"name": name, "kind": "network", "description": summary, "parameters": parameters}
    print_json({**facts, "weights": weights, **_footprint_facts(found)})


_SIDES = ("top", "bottom", "left", "right")


def _footprint_facts(found: Footprint) -> dict[str, Any]:
    return {"stride_px": found.stride, "halo_px": dict(zip(_SIDES, found.halo.sides, strict=True))}


def _parameters(network: type[object]) -> dict[str, object]:
    """A network's parameters with their defaults; those without one are `needed`."""
    every = list(inspect.signature(network).parameters.values())
    return {each.name: "needed" if each.default is each.empty else each.default for each in every}


def export_model_command(model: BundleArgument, target: TargetOption) -> None:
    """Write a model as a program of torch.export with its card beside it, or copy its bundle."""
    from flows.run.custom_model import as_bundle

    if target.exists():
        raise FlowError(f"{target} exists: nothing is overwritten; choose another --out")
    if target.suffix not in {"", ".pt2"}:
        raise FlowError(f"--out {target}: a model is written as .pt2 or as a bundle's folder; give one of these")
    if not target.absolute().parent.is_dir():
        raise FlowError(f"--out {target}: there is no folder {target.absolute().parent}; make it or choose another")
    with as_bundle(model) as folder:
        files = _export_bundle(folder, target)
    print_json({"model": model, "files": files})


def _export_bundle(folder: str, target: Path) -> list[Path]:
    from unet_core.bundles.program_file import copy_bundle, write_program_file

    out: PlainConsole = console()
    if target.suffix == ".pt2":
        card = write_program_file(folder, target)
        out.print(f"program: {target} takes normalised tiles (batch, band, y, x) and gives logits", soft_wrap=True)
        out.print(f"card:    {card} holds bands, classes and normalisation", soft_wrap=True)
        return [target, card]
    files = copy_bundle(folder, target)
    out.print(f"bundle:  {target}; overtile models import {pasted(target)} --out NEW changes its card", soft_wrap=True)
    return files
