"""Multi-scale structural similarity: Wang, Simoncelli and Bovik (Asilomar 2003), as UNet 3+ uses it for outlines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from unet_core.training.losses.base import Loss, Rule, chances

# How much each scale counts, the finest first: Wang 2003, section 3.2.
_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = 0.01**2, 0.03**2
_SIGMA_PX = 1.5
# A power below 1 has no finite slope at 0, where the two have nothing in common.
_LEAST = 1e-4


class MSSSIMLoss(Loss):
    """1 - MS-SSIM of probabilities and targets, per image and class, averaged.

    Luminance and contrast-structure enter at every scale with the scale's exponent, as in UNet 3+ (Huang 2020,
    arXiv:2004.08790, section 2.3); statistics are taken under a Gaussian of `window_px`, each scale is half as
    fine as the one before. With fewer than the paper's 5 `scales` the exponents are scaled to the same sum.
    """

    def __init__(self, scales: int = 5, window_px: int = 11, *, rule: Rule = "threshold") -> None:
        super().__init__()
        if not 1 <= scales <= len(_EXPONENTS):
            raise ValueError(f"scales must lie in 1..{len(_EXPONENTS)}, got {scales}")
        if window_px < 1 or window_px % 2 == 0:
            raise ValueError(f"window_px must be odd and positive, got {window_px}")
        self.scales, self.window_px = scales, window_px
        self.rule: Rule = rule
        self.least_px = window_px * 2 ** (scales - 1)
        share = sum(_EXPONENTS) / sum(_EXPONENTS[:scales])
        self.exponents = tuple(exponent * share for exponent in _EXPONENTS[:scales])

    def forward(self, logits_NCHW: Tensor, targets_NCHW: Tensor, weights_NHW: Tensor | None = None) -> Tensor:
        if min(logits_NCHW.shape[2:]) < self.least_px:
            raise ValueError(
                f"{self.scales} scales under a window of {self.window_px} px need outputs of {self.least_px} px, "
                f"these are {tuple(logits_NCHW.shape[2:])}: give larger crops (tile_px) or fewer scales"
            )
        one_NCHW, other_NCHW = chances(logits_NCHW, self.rule), targets_NCHW
        kernel = _gaussian(self.window_px, one_NCHW)
        likeness_NC = one_NCHW.new_ones(one_NCHW.shape[:2])
        for scale, exponent in enumerate(self.exponents):
            if scale:
                one_NCHW, other_NCHW = (functional.avg_pool2d(each, 2) for each in (one_NCHW, other_NCHW))
            for part_NCHW in _luminance_and_structure(one_NCHW, other_NCHW, kernel):
                likeness_NC = likeness_NC * part_NCHW.mean(dim=(2, 3)).clamp(min=_LEAST) ** exponent
        return 1 - likeness_NC.mean()


def _luminance_and_structure(one_NCHW: Tensor, other_NCHW: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    mean, others_mean = _blurred(one_NCHW, kernel), _blurred(other_NCHW, kernel)
    variance = _blurred(one_NCHW.square(), kernel) - mean.square()
    others_variance = _blurred(other_NCHW.square(), kernel) - others_mean.square()
    covariance = _blurred(one_NCHW * other_NCHW, kernel) - mean * others_mean
    luminance = (2 * mean * others_mean + _C1) / (mean.square() + others_mean.square() + _C1)
    return luminance, (2 * covariance + _C2) / (variance + others_variance + _C2)


def _gaussian(window_px: int, like: Tensor) -> Tensor:
    offsets = torch.arange(window_px, dtype=like.dtype, device=like.device) - window_px // 2
    weights = torch.exp(-0.5 * (offsets / _SIGMA_PX) ** 2)
    return (weights / weights.sum()).reshape(1, 1, 1, -1)


def _blurred(x_NCHW: Tensor, kernel: Tensor) -> Tensor:
    """Only where the window lies inside: H and W shrink by `window_px - 1`."""
    planes = x_NCHW.flatten(0, 1)[:, None]
    planes = functional.conv2d(functional.conv2d(planes, kernel), kernel.transpose(2, 3))
    return planes.reshape(*x_NCHW.shape[:2], *planes.shape[2:])
