"""Losses that compare whole regions of predicted and true pixels."""

from __future__ import annotations

from torch import Tensor

from unet_core.training.losses.base import Loss, Rule, chances, expect_positive


class DiceLoss(Loss):
    """1 - Dice of probabilities and targets, per image and class, averaged.

    `squared` sums the squares in the denominator, as V-Net does (Milletari 2016, arXiv:1606.04797); without it,
    the plain sums of Sudre 2017 (arXiv:1707.03237). `epsilon`, in pixels, makes an empty class that is
    rightly predicted empty a loss of 0. `rule` chooses softmax or sigmoid probabilities.
    """

    def __init__(self, epsilon: float = 1.0, *, squared: bool = False, rule: Rule = "threshold") -> None:
        super().__init__()
        expect_positive(epsilon=epsilon)
        self.epsilon, self.squared = epsilon, squared
        self.rule: Rule = rule

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        chance_NCHW = chances(logits_NCHW, self.rule)
        overlap_NC = (chance_NCHW * targets_NCHW).sum(dim=(2, 3))
        if self.squared:
            total_NC = (chance_NCHW.square() + targets_NCHW.square()).sum(dim=(2, 3))
        else:
            total_NC = (chance_NCHW + targets_NCHW).sum(dim=(2, 3))
        return 1 - ((2 * overlap_NC + self.epsilon) / (total_NC + self.epsilon)).mean()


class IoULoss(Loss):
    """1 - intersection over union of probabilities and targets, per image and class, averaged.

    The IoU loss of UNet 3+ (Huang 2020, arXiv:2004.08790) after Máttyus 2017 (DeepRoadMapper, ICCV). `epsilon`,
    in pixels, makes an empty class that is rightly predicted empty a loss of 0.
    """

    def __init__(self, epsilon: float = 1.0, *, rule: Rule = "threshold") -> None:
        super().__init__()
        expect_positive(epsilon=epsilon)
        self.epsilon = epsilon
        self.rule: Rule = rule

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        chance_NCHW = chances(logits_NCHW, self.rule)
        overlap_NC = (chance_NCHW * targets_NCHW).sum(dim=(2, 3))
        union_NC = (chance_NCHW + targets_NCHW).sum(dim=(2, 3)) - overlap_NC
        return 1 - ((overlap_NC + self.epsilon) / (union_NC + self.epsilon)).mean()
