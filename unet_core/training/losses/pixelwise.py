"""Losses that judge each pixel on its own and average: they can weigh pixels and classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from unet_core.training.losses.base import Loss, Rule, expect_positive, mean_of_pixels, of_channels


class BCELoss(Loss):
    """Binary cross-entropy of each output against its target, averaged over all pixels and outputs.

    `positive_weights`: per output, how much a pixel of its class counts against one that is not.
    """

    weighs_pixels = True

    def __init__(self, positive_weights: Sequence[float] = ()) -> None:
        super().__init__()
        self.positive_weights = tuple(positive_weights)
        expect_positive(**{f"positive_weights[{i}]": weight for i, weight in enumerate(self.positive_weights)})

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        positive = of_channels(self.positive_weights, logits_NCHW, "positive_weights")
        loss_NCHW = functional.binary_cross_entropy_with_logits(
            logits_NCHW,
            targets_NCHW,
            pos_weight=None if positive is None else positive[:, None, None],
            reduction="none",
        )
        return mean_of_pixels(loss_NCHW.mean(dim=1), weights_NHW)


class CrossEntropyLoss(Loss):
    """Cross-entropy of the softmax over all outputs, the energy of Ronneberger 2015 (arXiv:1505.04597, eq. 1).

    `class_weights`: per label, how much its pixels count. The sum over the pixels is divided by their number, as
    the mean of the border map's weights is, and not by the sum of the weights: parts of a batch then add up.
    """

    weighs_pixels = True

    def __init__(self, class_weights: Sequence[float] = (), *, rule: Rule = "argmax") -> None:
        super().__init__()
        if rule != "argmax":
            raise ValueError(f"a softmax needs the decision rule argmax, the card has {rule}: use bce")
        self.class_weights = tuple(class_weights)
        expect_positive(**{f"class_weights[{i}]": weight for i, weight in enumerate(self.class_weights)})

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        loss_NCHW = -targets_NCHW * logits_NCHW.log_softmax(dim=1)
        per_class = of_channels(self.class_weights, logits_NCHW, "class_weights")
        if per_class is not None:
            loss_NCHW = loss_NCHW * per_class[:, None, None]
        return mean_of_pixels(loss_NCHW.sum(dim=1), weights_NHW)


class FocalLoss(Loss):
    """-α (1 - p)^γ log p of the right answer's probability p: Lin 2017 (arXiv:1708.02002, eq. 5), mean over pixels.

    `alpha` counts for the classes, 1 - `alpha` for the background; None counts both as 1.
    """

    weighs_pixels = True

    def __init__(self, gamma: float = 2.0, alpha: float | None = 0.25, *, rule: Rule = "threshold") -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must not be negative, got {gamma}")
        if alpha is not None and not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        self.gamma, self.alpha = gamma, alpha
        self.rule: Rule = rule

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        if self.rule == "argmax":
            log_NCHW = (targets_NCHW * logits_NCHW.log_softmax(dim=1)).sum(dim=1, keepdim=True)
            foreground_NCHW = 1 - targets_NCHW[:, :1]
        else:
            log_NCHW = functional.logsigmoid((2 * targets_NCHW - 1) * logits_NCHW)
            foreground_NCHW = targets_NCHW
        # 1 - p as -expm1(log p) keeps its gradient where p is close to 1.
        loss_NCHW = -((-log_NCHW.expm1()).clamp(min=1e-12) ** self.gamma) * log_NCHW
        if self.alpha is not None:
            loss_NCHW = loss_NCHW * (self.alpha * foreground_NCHW + (1 - self.alpha) * (1 - foreground_NCHW))
        return mean_of_pixels(loss_NCHW.mean(dim=1), weights_NHW)
