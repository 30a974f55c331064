"""The loss of a network with several heads: deep supervision and classification guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unet_core.training.losses.base import Loss


class HeadsLoss(nn.Module):
    """The weighted mean of one loss over all heads, so that its scale is that of a single head.

    Equal weights are UNet++'s deep supervision (Zhou 2018, arXiv:1807.10165, section 2.3) and, but for the
    factor, UNet 3+'s sum (Huang 2020, arXiv:2004.08790). `guided`: the last output is UNet 3+'s classification
    (N, 2, 1, 1), nothing to segment or something; `guidance` x its cross-entropy against whether the image's
    crop holds any foreground is added (section 2.4).

    Raises ValueError where there are not as many weights as heads.
    """

    def __init__(
        self, loss: Loss, heads: int, weights: Sequence[float] = (), *, guided: bool = False, guidance: float = 1.0
    ) -> None:
        super().__init__()
        weights = weights or (1.0,) * heads
        if len(weights) != heads:
            raise ValueError(f"head_weights holds {len(weights)} numbers for {heads} heads: give one for each")
        self.loss, self.guided, self.guidance = loss, guided, guidance
        self.shares = [weight / sum(weights) for weight in weights]

    def forward(
        self, outputs: Sequence[Tensor], targets_NCHW: Tensor, labels_NHW: Tensor, weights_NHW: Tensor | None = None
    ) -> Tensor:
        heads = outputs[: len(self.shares)]
        total = torch.stack(
            [
                share * self.loss(logits_NCHW.float(), targets_NCHW, weights_NHW)
                for share, logits_NCHW in zip(self.shares, heads, strict=True)
            ]
        ).sum()
        if not self.guided:
            return total
        presence_N2 = outputs[-1].float().flatten(1)
        return total + self.guidance * functional.cross_entropy(presence_N2, labels_NHW.flatten(1).any(dim=1).long())
