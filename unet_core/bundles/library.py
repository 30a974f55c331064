"""Network of an installed library: imported where a model needs it, and built by its class and arguments."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn

from unet_core.bundles.reference import FAILURES
from unet_core.errors import BundleError


def import_library(name: str, needed: str, install: str) -> ModuleType:
    """Import a library's module. `needed` opens the message where it is absent; `install` is what pip installs.

    Raises:
        BundleError: it can't be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BundleError(
            f"{needed} can't be imported ({error}): pip install {install}; or, where it is installed, export the "
            f"network with torch.export.save and use the .pt2"
        ) from error


def build_network(
    network_class: type[Any], options: Mapping[str, Any], name: str, file: Path, remedy: str
) -> nn.Module:
    """Build a network of a library's class by the options of a file. `name` is the class's in messages.

    Raises:
        BundleError: the class doesn't take them.
    """
    try:
        return cast("nn.Module", network_class(**options))
    except FAILURES as error:
        said = " ".join(str(error).split())
        raise BundleError(f"{name} can't be built from {str(file)!r}: {said}; {remedy}") from error
