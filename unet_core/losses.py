"""Losses, by the name that a training configuration gives them.

Every loss is a module called as `loss(logits_NCHW, targets_NCHW) -> scalar`; the targets are 0 or 1 per output
channel (`one_hot_targets`), so one loss serves both decision rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unet_core.errors import TrainingError

Rule = Literal["argmax", "threshold"]


def one_hot_targets(labels_NHW: Tensor, outputs: int, rule: Rule) -> Tensor:
    """Integer labels as float targets `(N, outputs, H, W)`: under `threshold`, channel c stands for label c + 1."""
    first = 0 if rule == "argmax" else 1
    labels_of_channels = torch.arange(first, first + outputs, device=labels_NHW.device)
    return (labels_NHW[:, None] == labels_of_channels[None, :, None, None]).float()


class BCELoss(nn.Module):
    """Binary cross-entropy of each output against its target, averaged over all pixels."""

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits_NCHW, targets_NCHW)


class DiceLoss(nn.Module):
    """1 - Dice of probabilities and targets, per image and class, averaged.

    `squared` sums the squares in the denominator, as V-Net does (Milletari 2016, arXiv:1606.04797); without it,
    the plain sums of Sudre 2017 (arXiv:1707.03237). `epsilon`, in pixels, makes an empty class that is
    rightly predicted empty a loss of 0. `rule` chooses softmax or sigmoid probabilities.
    """

    def __init__(self, epsilon: float = 1.0, *, squared: bool = False, rule: Rule = "threshold") -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {epsilon}: an empty class would divide by zero")
        self.epsilon, self.squared, self.rule = epsilon, squared, rule

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor) -> Tensor:
        chance_NCHW = logits_NCHW.softmax(dim=1) if self.rule == "argmax" else logits_NCHW.sigmoid()
        overlap_NC = (chance_NCHW * targets_NCHW).sum(dim=(2, 3))
        if self.squared:
            total_NC = (chance_NCHW.square() + targets_NCHW.square()).sum(dim=(2, 3))
        else:
            total_NC = (chance_NCHW + targets_NCHW).sum(dim=(2, 3))
        return 1 - ((2 * overlap_NC + self.epsilon) / (total_NC + self.epsilon)).mean()


class DiceBCELoss(nn.Module):
    """`dice_weight` x Dice loss + (1 - `dice_weight`) x binary cross-entropy, for the threshold rule."""

    def __init__(self, dice_weight: float = 0.5, epsilon: float = 1.0, *, squared: bool = False) -> None:
        super().__init__()
        if not 0 <= dice_weight <= 1:
            raise ValueError(f"dice_weight must lie in 0..1, got {dice_weight}")
        self.dice_weight = dice_weight
        self.dice, self.bce = DiceLoss(epsilon, squared=squared), BCELoss()

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor) -> Tensor:
        dice, bce = self.dice(logits_NCHW, targets_NCHW), self.bce(logits_NCHW, targets_NCHW)
        return self.dice_weight * dice + (1 - self.dice_weight) * bce


LOSSES: dict[str, type[nn.Module]] = {"bce": BCELoss, "dice": DiceLoss, "dice_bce": DiceBCELoss}


def build_loss(name: str, parameters: Mapping[str, Any]) -> nn.Module:
    """The loss `name` with its constructor's `parameters`.

    Raises TrainingError for a name that isn't registered or parameters that the loss doesn't take.
    """
    if name not in LOSSES:
        raise TrainingError(f"no loss is called {name!r}; the known ones are {', '.join(sorted(LOSSES))}")
    try:
        return LOSSES[name](**parameters)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"loss {name!r} can't be built from {dict(parameters)!r}: {error}") from error
