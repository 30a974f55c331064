"""Sums of losses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unet_core.training.losses.base import Loss, Rule
from unet_core.training.losses.ms_ssim import MSSSIMLoss
from unet_core.training.losses.pixelwise import BCELoss, CrossEntropyLoss, FocalLoss
from unet_core.training.losses.regional import DiceLoss, IoULoss


class DiceBCELoss(Loss):
    """`dice_weight` x Dice loss + (1 - `dice_weight`) x binary cross-entropy, which alone weighs pixels."""

    weighs_pixels = True

    def __init__(
        self, dice_weight: float = 0.5, epsilon: float = 1.0, *, squared: bool = False, rule: Rule = "threshold"
    ) -> None:
        super().__init__()
        if not 0 <= dice_weight <= 1:
            raise ValueError(f"dice_weight must lie in 0..1, got {dice_weight}")
        self.dice_weight = dice_weight
        self.dice, self.bce = DiceLoss(epsilon, squared=squared, rule=rule), BCELoss()

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        dice, bce = self.dice(logits_NCHW, targets_NCHW), self.bce(logits_NCHW, targets_NCHW, weights_NHW)
        return self.dice_weight * dice + (1 - self.dice_weight) * bce


class DiceCrossEntropyLoss(Loss):
    """`dice_weight` x Dice loss + (1 - `dice_weight`) x cross-entropy of the softmax, which alone weighs pixels.

    `class_weights`: per label, how much its pixels count in the cross-entropy.
    """

    weighs_pixels = True

    def __init__(
        self,
        dice_weight: float = 0.5,
        class_weights: Sequence[float] = (),
        epsilon: float = 1.0,
        *,
        rule: Rule = "argmax",
    ) -> None:
        super().__init__()
        if not 0 <= dice_weight <= 1:
            raise ValueError(f"dice_weight must lie in 0..1, got {dice_weight}")
        self.dice_weight = dice_weight
        self.dice, self.entropy = DiceLoss(epsilon, rule=rule), CrossEntropyLoss(class_weights, rule=rule)

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        dice, entropy = self.dice(logits_NCHW, targets_NCHW), self.entropy(logits_NCHW, targets_NCHW, weights_NHW)
        return self.dice_weight * dice + (1 - self.dice_weight) * entropy


class UNet3PlusLoss(Loss):
    """Focal + MS-SSIM + IoU: pixels, outlines and regions, UNet 3+'s hybrid (Huang 2020, arXiv:2004.08790, eq. 4).

    The focal part alone weighs pixels.
    """

    weighs_pixels = True

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        scales: int = 5,
        window_px: int = 11,
        epsilon: float = 1.0,
        *,
        rule: Rule = "threshold",
    ) -> None:
        super().__init__()
        self.focal = FocalLoss(gamma, alpha, rule=rule)
        self.ms_ssim = MSSSIMLoss(scales, window_px, rule=rule)
        self.iou = IoULoss(epsilon, rule=rule)

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        regions = self.ms_ssim(logits_NCHW, targets_NCHW) + self.iou(logits_NCHW, targets_NCHW)
        return regions + self.focal(logits_NCHW, targets_NCHW, weights_NHW)
