"""The networks, by the name that a bundle's card gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unet_core.errors import BundleError
from unet_core.models.fcn import FCN8s, FCN16s, FCN32s
from unet_core.models.patch_classifier import PatchClassifier
from unet_core.models.resnet34_unet import ResNet34UNet
from unet_core.models.unet import UNet
from unet_core.models.unet3p import UNet3Plus
from unet_core.models.unet_bn import UNetBN, UNetBNDeconv
from unet_core.models.unet_configurable import UNetConfigurable
from unet_core.models.unet_dice import UNetDice
from unet_core.models.unet_original import UNetOriginal
from unet_core.models.unet_strided import UNetStrided
from unet_core.models.unet_x import UNetX1, UNetX3
from unet_core.models.unetpp import UNetPlusPlus

MODELS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "unet_original": UNetOriginal,
    "unet_configurable": UNetConfigurable,
    "unet_dice": UNetDice,
    "unet_strided": UNetStrided,
    "unet_x1": UNetX1,
    "unet_x3": UNetX3,
    "unet_bn_deconv": UNetBNDeconv,
    "unet_bn": UNetBN,
    "fcn32s": FCN32s,
    "fcn16s": FCN16s,
    "fcn8s": FCN8s,
    "unetpp": UNetPlusPlus,
    "unet3p": UNet3Plus,
    "resnet34_unet": ResNet34UNet,
    "patch_classifier": PatchClassifier,
}


def build_without_values(name: str, parameters: Mapping[str, Any]) -> nn.Module:
    """The network in evaluation mode, with shapes but no memory; raises BundleError as `build` does."""
    with torch.device("meta"):
        return build(name, parameters).eval()


def build(name: str, parameters: Mapping[str, Any]) -> nn.Module:
    """The network `name` with its constructor's `parameters`, freshly initialised, in training mode.

    Raises BundleError for a name that isn't registered or parameters that the network doesn't take.
    """
    if name not in MODELS:
        raise BundleError(f"no network is called {name!r}; the known ones are {', '.join(sorted(MODELS))}")
    try:
        return MODELS[name](**parameters)
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"network {name!r} can't be built from {dict(parameters)!r}: {error}; correct the card's parameters"
        ) from error
