"""Every network of the registry in the configuration that its paper or document describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unet_core.models import build

_FEW: dict[str, dict[str, int]] = {
    **{name: {"first_channels": 8, "head_channels": 32} for name in ("fcn32s", "fcn16s", "fcn8s")},
    "unet3p": {"first_channels": 8, "skip_channels": 8},
    "patch_classifier": {"channels": 8, "hidden": 16},
}
_GUIDED: dict[str, Any] = {"deep_supervision": True, "classification_guided": True}


@dataclass(frozen=True, slots=True)
class Described:
    """A network in the configuration that its paper or document describes."""

    name: str
    bands: int
    classes: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def key(self) -> str:
        """A name of its own, also among several configurations of one network."""
        return ", ".join([self.name, *(f"{name} {value}" for name, value in self.options.items())])

    @property
    def configuration(self) -> str:
        parts = [f"{name} {value}" for name, value in self.options.items() if value is not True]
        parts += [name.replace("_", " ") for name, value in self.options.items() if value is True]
        return ", ".join([f"{self.bands} → {self.classes}", *parts])

    @property
    def parameters(self) -> dict[str, Any]:
        return {"bands": self.bands, "classes": self.classes, **self.options}

    def build(self) -> nn.Module:
        """The network, without memory for its weights."""
        with torch.device("meta"):
            return build(self.name, self.parameters)

    def small(self) -> Described:
        """The same network with few channels, of three bands and one class."""
        return Described(self.name, 3, 1, {**self.options, **_FEW.get(self.name, {"first_channels": 8})})


DESCRIBED = (
    Described("unet", 1, 1),
    Described("unet_original", 1, 2),
    Described("unet_configurable", 1, 1),
    Described("unet_dice", 1, 1),
    Described("unet_strided", 3, 3),
    Described("unet_x1", 3, 6),
    Described("unet_x3", 3, 3),
    Described("unet_bn_deconv", 1, 1),
    Described("unet_bn", 3, 1),
    Described("fcn32s", 3, 21),
    Described("fcn16s", 3, 21),
    Described("fcn8s", 3, 21),
    Described("unetpp", 1, 1, {"deep_supervision": True}),
    *(Described("unetpp", 1, 1, {"level": level}) for level in (1, 2, 3, 4)),
    Described("unet3p", 3, 1),
    Described("unet3p", 3, 1, {"deep_supervision": True}),
    Described("unet3p", 3, 1, _GUIDED),
    Described("resnet34_unet", 3, 1),
    Described("patch_classifier", 1, 2),
)
