"""Losses, by the name that a recipe gives them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from unet_core.errors import TrainingError
from unet_core.training.losses.base import Loss, Rule, one_hot_targets
from unet_core.training.losses.combined import DiceBCELoss, DiceCrossEntropyLoss, UNet3PlusLoss
from unet_core.training.losses.heads import HeadsLoss
from unet_core.training.losses.ms_ssim import MSSSIMLoss
from unet_core.training.losses.pixelwise import BCELoss, CrossEntropyLoss, FocalLoss
from unet_core.training.losses.regional import DiceLoss, IoULoss

__all__ = [
    "LOSSES",
    "BCELoss",
    "CrossEntropyLoss",
    "DiceBCELoss",
    "DiceCrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "HeadsLoss",
    "IoULoss",
    "Loss",
    "MSSSIMLoss",
    "Rule",
    "UNet3PlusLoss",
    "build_loss",
    "one_hot_targets",
]

LOSSES: dict[str, type[Loss]] = {
    "bce": BCELoss,
    "cross_entropy": CrossEntropyLoss,
    "dice": DiceLoss,
    "dice_bce": DiceBCELoss,
    "dice_cross_entropy": DiceCrossEntropyLoss,
    "focal": FocalLoss,
    "iou": IoULoss,
    "ms_ssim": MSSSIMLoss,
    "unet3p": UNet3PlusLoss,
}


def build_loss(name: str, parameters: Mapping[str, Any], rule: Rule = "threshold") -> Loss:
    """The loss `name` with its constructor's `parameters`, for outputs under a card's decision rule.

    Raises TrainingError for a name that isn't registered or parameters that the loss doesn't take.
    """
    if name not in LOSSES:
        raise TrainingError(f"no loss is called {name!r}; the known ones are {', '.join(sorted(LOSSES))}")
    ruled = {"rule": rule} if "rule" in inspect.signature(LOSSES[name]).parameters else {}
    try:
        return LOSSES[name](**{**ruled, **parameters})
    except (TypeError, ValueError) as error:
        raise TrainingError(f"loss {name!r} can't be built from {dict(parameters)!r}: {error}") from error
