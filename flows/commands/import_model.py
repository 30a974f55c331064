"""`overtile models import`: a bundle from any network, with what nobody can derive given or asked for."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.commands.completion import complete_models_and_networks
from flows.commands.models import bundle_facts
from flows.commands.options import takes
from flows.commands.output import console, output, print_json
from flows.config.run import ModelOptions
from flows.errors import FlowError
from unet_core.bundles.card import CARD_NAME
from unet_core.bundles.facts import QUESTIONS, CardFacts, read_facts
from unet_core.bundles.origin import Origin
from unet_core.errors import FootprintError

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A .pt2 of torch.export, an .onnx graph, a bioimage.io package, a MONAI bundle, a folder of "
        "segmentation_models_pytorch, hf:OWNER/NAME@COMMIT, package.module:factory, the name of one of overtile's "
        "networks (with --weights), or a bundle.",
        autocompletion=complete_models_and_networks,
    ),
]
BundleOption = Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder.")]
ParameterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        metavar="NAME=VALUE",
        help="A parameter of one of overtile's networks, as bands=3. May be repeated.",
    ),
]
CardOption = Annotated[Path | None, typer.Option(help="A TOML or JSON file with any of the facts below.")]
NameOption = Annotated[str | None, typer.Option(metavar="NAME", help="The model's name; the source's by default.")]
DescriptionOption = Annotated[str | None, typer.Option(metavar="SENTENCE", help="One sentence on what it finds.")]
BandsOption = Annotated[
    str | None, typer.Option(metavar="BAND,…", help="Bands in the network's order: red,green,blue.")
]
DtypeOption = Annotated[
    str | None, typer.Option(metavar="uint8|uint16|float32", help="Type of the image's numbers; uint8 when not given.")
]
ClassesOption = Annotated[str | None, typer.Option(metavar="CLASS,…", help="Labels, 0 first: background,nucleus.")]
ColorsOption = Annotated[
    str | None, typer.Option(metavar="COLOR,…", help="One #rrggbb per class; a palette by default.")
]
DecisionOption = Annotated[
    str | None,
    typer.Option(metavar="argmax|threshold", help="How channels become labels; by their number when not given."),
]
ThresholdsOption = Annotated[
    str | None, typer.Option(metavar="X,…", help="One per class but the background; 0.5 by default.")
]
PixelSizeOption = Annotated[
    str | None, typer.Option("--pixel-size", metavar="X>0", help="Pixel size that it was trained at, in µm.")
]
MeanOption = Annotated[
    str | None, typer.Option(metavar="X,…", help="Mean per band, in the image's raw numbers: 123.7,116.3,103.5.")
]
StdOption = Annotated[str | None, typer.Option(metavar="X,…", help="Deviation per band, in the same numbers.")]


@takes(ModelOptions, only=["weights", "trust_code"])
def import_command(
    *,
    source: SourceArgument,
    out_folder: BundleOption,
    parameter: ParameterOption = None,
    card: CardOption = None,
    name: NameOption = None,
    description: DescriptionOption = None,
    bands: BandsOption = None,
    dtype: DtypeOption = None,
    classes: ClassesOption = None,
    colors: ColorsOption = None,
    decision: DecisionOption = None,
    thresholds: ThresholdsOption = None,
    pixel_size: PixelSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="LICENCE", help="The weights' licence.")
    ] = None,
    **asked: Any,
) -> None:
    """Make a bundle of a network of your own; what isn't given and can't be derived is asked for."""
    given = {
        "name": name,
        "description": description,
        "bands": _items(bands),
        "dtype": dtype,
        "classes": _items(classes),
        "colors": _items(colors),
        "decision": decision,
        "thresholds": _items(thresholds),
        "pixel_size_um": _micrometres(pixel_size),
        "mean": _items(mean),
        "std": _items(std),
        "license": license_name,
    }
    facts = CardFacts.model_validate(given)
    facts = facts.merged_with(read_facts(card)) if card else facts
    asked_of_model = ModelOptions.model_validate({**asked, "model": source})
    origin = dataclasses.replace(asked_of_model.origin(), parameters=_parameters(parameter or []))
    may_ask = sys.stdin.isatty() and not output().is_json
    make_bundle(console(), origin, out_folder, facts, _ask if may_ask else None)
    if output().is_json:
        print_json({"out": out_folder, **bundle_facts(str(out_folder))})


def make_bundle(
    console: Console, origin: Origin, folder: Path, facts: CardFacts, ask: Callable[[str, str], str] | None
) -> None:
    """Import a network, ask for what is missing where somebody can answer, write the bundle and show its footprint.

    Raises:
        BundleError: the network can't be read or trusted, or facts are missing or don't fit.
        FlowError: the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise FlowError(f"--out {folder} is a file, and a bundle is a folder: nothing is overwritten; choose another")
    if folder.exists() and any(folder.iterdir()) and not (folder / CARD_NAME).is_file():
        raise FlowError(f"{folder} exists and holds no bundle: nothing in it is overwritten; choose another --out")
    origin.expect_trust()
    from flows.commands.terminal import print_model
    from unet_core.bundles.importing import import_model

    imported = import_model(origin, len(facts.bands) if facts.bands else None)
    if imported.left_out:
        console.print(f"the {imported.left_out} that ends the network is left out: the decision applies it")
    facts = facts.merged_with(imported.known)
    if ask is not None:
        facts = _completed(facts, ask)
    imported.save(folder, facts)
    console.print(f"bundle {folder}", highlight=False, soft_wrap=True)
    try:
        print_model(console, str(folder))
    except FootprintError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)


def _completed(facts: CardFacts, ask: Callable[[str, str], str]) -> CardFacts:
    """The facts with answers to what is missing; the pixel size may stay open."""
    missing = facts.missing()
    answers: dict[str, object] = {name: _items(ask(QUESTIONS[name], "")) for name in missing}
    if missing and facts.pixel_size_um is None:
        pixel_size = ask("pixel size in µm that it was trained at (empty: any)", "")
        answers["pixel_size_um"] = pixel_size or None
    return CardFacts.model_validate(answers).merged_with(facts)


def _ask(question: str, default: str) -> str:
    return typer.prompt(question, default=default, show_default=False)


def _micrometres(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise FlowError(f"--pixel-size: a number above 0 is needed, not {text!r}; give µm per pixel, for example 0.5")
    return found


def _items(text: str | None) -> tuple[str, ...] | None:
    return tuple(item.strip() for item in text.split(",")) if text else None


def _parameters(given: list[str]) -> dict[str, object]:
    """NAME=VALUE, the value as JSON where it is JSON."""
    found: dict[str, object] = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not (name and equals):
            raise FlowError(f"--parameter {entry!r} names no value; give NAME=VALUE, for example bands=3")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found
