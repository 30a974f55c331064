"""Base of all losses, and what they compare."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Rule = Literal["argmax", "threshold"]


class Loss(nn.Module):
    """Called as `loss(logits_NCHW, targets_NCHW, weights_NHW) -> scalar`: a mean over the images of the batch.

    Targets are 0 or 1 per output channel (`one_hot_targets`), so one loss serves both decision rules. Being a
    mean over images, it is the same for a batch in one piece and in equal parts. `weighs_pixels`: whether
    `weights_NHW`, how much each pixel counts, is taken into account; the others take None alone.
    """

    weighs_pixels = False

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        """The loss of one batch."""
        raise AssertionError("every loss computes its own")


def one_hot_targets(labels_NHW: Tensor, outputs: int, rule: Rule) -> Tensor:
    """Integer labels as float targets `(N, outputs, H, W)`: under `threshold`, channel c stands for label c + 1."""
    first = 0 if rule == "argmax" else 1
    labels_of_channels = torch.arange(first, first + outputs, device=labels_NHW.device)
    return (labels_NHW[:, None] == labels_of_channels[None, :, None, None]).float()


def chances(logits_NCHW: Tensor, rule: Rule) -> Tensor:
    """The probability of each output's class, as the decision rule sees it."""
    return logits_NCHW.softmax(dim=1) if rule == "argmax" else logits_NCHW.sigmoid()


def mean_of_pixels(loss_NHW: Tensor, weights_NHW: Tensor | None) -> Tensor:
    """The mean over all pixels, each counted as often as its weight says."""
    return (loss_NHW if weights_NHW is None else loss_NHW * weights_NHW).mean()


def expect_positive(**given: float) -> None:
    """Refuse numbers that aren't above 0, given by name; raises ValueError."""
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def of_channels(weights: tuple[float, ...], logits_NCHW: Tensor, name: str) -> Tensor | None:
    """Weights per output channel; None where there are none, ValueError where their count is another."""
    if not weights:
        return None
    if len(weights) != logits_NCHW.shape[1]:
        raise ValueError(f"{name} holds {len(weights)} numbers for {logits_NCHW.shape[1]} outputs: give one for each")
    return torch.tensor(weights, dtype=logits_NCHW.dtype, device=logits_NCHW.device)
