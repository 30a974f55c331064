"""Networks from code that is not overtile's: a factory that the user trusts, and segmentation_models_pytorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from unet_core.bundles.library import build_network, import_library
from unet_core.bundles.origin import SMP_CONFIG, SMP_WEIGHTS
from unet_core.bundles.reference import FAILURES, follow
from unet_core.bundles.weights import load_fitting, read_safetensors
from unet_core.errors import BundleError

SMP_LIBRARY = "segmentation_models_pytorch"
_SMP_CLASSES = (
    "DPT", "DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "MAnet", "PAN", "PSPNet", "Segformer", "UPerNet", "Unet",
    "UnetPlusPlus",
)  # fmt: skip


def call_factory(reference: str) -> nn.Module:
    """The network that `package.module:factory` gives, which runs that code; the current folder is importable.

    Raises BundleError where there is no such module or factory, or what it gives is no network.
    """
    try:
        network = follow(reference, nn.Module)
    except FAILURES as error:
        said = " ".join(str(error).split())
        raise BundleError(
            f"factory {reference!r} gives no network ({type(error).__name__}: {said}); give package.module:function, "
            f"importable from {Path.cwd()}, that takes no arguments"
        ) from error
    if not isinstance(network, nn.Module):
        raise BundleError(
            f"factory {reference!r} gives a {type(network).__name__}, which is no torch.nn.Module; let it return one"
        )
    return network


def load_smp(folder: Path) -> nn.Module:
    """The network of a folder that `save_pretrained` of segmentation_models_pytorch wrote.

    Its class comes from the library, its weights from safetensors; nothing is downloaded. Raises BundleError where
    the library is not installed, or the folder isn't what it writes.
    """
    needed = f"folder {str(folder)!r} is a model of {SMP_LIBRARY}, which"
    library = import_library(SMP_LIBRARY, needed, "segmentation-models-pytorch")
    name, options = _smp_config(folder / SMP_CONFIG)
    network_class = getattr(library, name, None)
    if name not in _SMP_CLASSES or not isinstance(network_class, type):
        raise BundleError(
            f"folder {str(folder)!r} wants {SMP_LIBRARY}.{name}, which is none of its networks; known are "
            f"{', '.join(_SMP_CLASSES)}"
        )
    remedy = "save it again with the installed version"
    network = build_network(network_class, options, f"{SMP_LIBRARY}.{name}", folder / SMP_CONFIG, remedy)
    weights = folder / SMP_WEIGHTS
    load_fitting(network, read_safetensors(weights), weights, f"{remedy} of {SMP_LIBRARY}")
    return network


def _smp_config(path: Path) -> tuple[str, dict[str, Any]]:
    """The class and the constructor's arguments, without pretrained weights to download."""
    try:
        config = json.loads(path.read_bytes())
        name = config["_model_class"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise BundleError(
            f"{str(path)!r} names no network ({type(error).__name__}: {error}); save it again with save_pretrained"
        ) from error
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    return str(name), options | {"encoder_weights": None}
