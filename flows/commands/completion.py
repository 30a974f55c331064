"""Completion of values in a shell: the choices that a placeholder shows, and the names of models, networks and formats.

Where none begins as what is typed, a shell offers files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial


def completion_of(metavar: str) -> Callable[[str], list[str]] | None:
    """Completion of an option by its placeholder, as `auto|none|IMAGE` or `MODEL`; None leaves it to offer files."""
    if metavar == "MODEL":
        return complete_models
    if metavar.startswith("FORMAT"):
        return complete_formats
    choices = [each for each in metavar.split("|") if each.islower() and each.isalnum()]
    return partial(_beginning, choices) if choices else None


def complete_models(incomplete: str) -> list[str]:
    """Names of shipped models."""
    from unet_core.bundles.card import list_bundles

    return _beginning((card.name for card in list_bundles()), incomplete)


def complete_networks(incomplete: str) -> list[str]:
    """Names of networks that a model can be made of."""
    from unet_core.bundles.networks import network_summaries

    return _beginning(network_summaries(), incomplete)


def complete_models_and_networks(incomplete: str) -> list[str]:
    """Names of both."""
    return [*complete_models(incomplete), *complete_networks(incomplete)]


def complete_formats(incomplete: str) -> list[str]:
    """Names of formats, the last of those with commas in between."""
    from tiling.export.formats import AUTO, FORMATS, NONE

    former, comma, last = incomplete.rpartition(",")
    return [f"{former}{comma}{each}" for each in _beginning((AUTO, NONE, *FORMATS), last)]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [each for each in names if each.startswith(incomplete)]
