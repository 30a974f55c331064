"""`overtile models`: lists them, shows one's card, and imports one that was trained elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from flows.reporting.escaping import PlainConsole, plain

BundleArgument = Annotated[str, typer.Argument(help="A shipped model's name or a bundle's folder.")]


def list_command(context: typer.Context) -> None:
    """List the models that come with overtile."""
    if context.invoked_subcommand is not None:
        return
    from unet_core.bundles.card import list_bundles

    table = Table("name", "classes", "bands", "description", box=None)
    for card in list_bundles():
        classes = ", ".join(item.name for item in card.classes[1:])
        table.add_row(*map(plain, (card.name, classes, " ".join(card.bands), card.description)))
    PlainConsole().print(table)


def inspect_command(bundle: BundleArgument) -> None:
    """Show a model's card, its exact halo and stride, and the layers that set them."""
    from flows.commands.terminal import print_model

    print_model(PlainConsole(), bundle)
