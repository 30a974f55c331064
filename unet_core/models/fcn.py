"""Fully convolutional networks on VGG-16.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015,
arXiv:1411.4038), on Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015, arXiv:1409.1556).
The paper pads the image by 100 px and cuts the result; here every layer, the 7×7 of the head included, is
same-padded, so that the logits lie on the input's own grid.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unet_core.models.blocks import expect_described, expect_range, relu

Upsampling = Literal["learned", "fixed", "interpolated"]
_UPSAMPLINGS = ("learned", "fixed", "interpolated")
# Convolutions per stage and the width of each stage in units of the first.
_STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class FCN(nn.Module):
    """Scores at stride 32, with those of pool4 and pool3 added where they are asked for, upsampled to the input.

    `features` and `classifier` are named as torchvision's `vgg16` names them, and `load_classifier` turns its
    fully connected layers into this head's convolutions. `classifier.6` scores the classes; it and the scores
    of the pools start at zero, as in the paper.

    upsampling: "learned": transposed convolutions that start as bilinear; "fixed": the same, never trained;
    "interpolated": bilinear interpolation, which mirrors nothing in from beyond the image but repeats its
    outermost scores there, where the other two see zeros.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of 32.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        first_channels: int = 64,
        head_channels: int = 4096,
        upsampling: Upsampling = "learned",
        skips: int = 0,
    ) -> None:
        super().__init__()
        expect_described(bands, classes, first_channels)
        expect_range(head_channels=(head_channels, 1, 8192), skips=(skips, 0, 2))
        if upsampling not in _UPSAMPLINGS:
            raise ValueError(f"upsampling must be one of {', '.join(_UPSAMPLINGS)}, got {upsampling!r}")
        self.features = _vgg16_features(bands, first_channels)
        self.classifier = nn.Sequential(
            nn.Conv2d(8 * first_channels, head_channels, 7, padding=3),
            relu(),
            nn.Dropout(),
            nn.Conv2d(head_channels, head_channels, 1),
            relu(),
            nn.Dropout(),
            nn.Conv2d(head_channels, classes, 1),
        )
        # The deepest first: pool4 at stride 16, then pool3 at stride 8.
        self.score_pool = nn.ModuleList(nn.Conv2d(width * first_channels, classes, 1) for width in (8, 4)[:skips])
        factors = [*[2] * skips, 32 // 2**skips]
        self.up = nn.ModuleList(_upsampling(classes, factor, upsampling) for factor in factors)
        for score in (self.classifier[6], *self.score_pool):
            nn.init.zeros_(cast("Tensor", score.weight))
            nn.init.zeros_(cast("Tensor", score.bias))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pools: list[Tensor] = []
        for layer in self.features:
            x_NCHW = layer(x_NCHW)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x_NCHW)
        x_NCHW = self.classifier(x_NCHW)
        for up, score, pool_NCHW in zip(self.up, self.score_pool, (pools[3], pools[2]), strict=False):
            x_NCHW = up(x_NCHW) + score(pool_NCHW)
        return cast("Tensor", self.up[-1](x_NCHW))


class FCN32s(FCN):
    """FCN without skips: one upsampling by 32. For parameters and shapes see `FCN`."""

    def __init__(
        self,
        bands: int,
        classes: int,
        first_channels: int = 64,
        head_channels: int = 4096,
        upsampling: Upsampling = "learned",
    ) -> None:
        super().__init__(bands, classes, first_channels, head_channels, upsampling, skips=0)


class FCN16s(FCN):
    """FCN with the scores of pool4 added. For parameters and shapes see `FCN`."""

    def __init__(
        self,
        bands: int,
        classes: int,
        first_channels: int = 64,
        head_channels: int = 4096,
        upsampling: Upsampling = "learned",
    ) -> None:
        super().__init__(bands, classes, first_channels, head_channels, upsampling, skips=1)


class FCN8s(FCN):
    """FCN with the scores of pool4 and pool3 added. For parameters and shapes see `FCN`."""

    def __init__(
        self,
        bands: int,
        classes: int,
        first_channels: int = 64,
        head_channels: int = 4096,
        upsampling: Upsampling = "learned",
    ) -> None:
        super().__init__(bands, classes, first_channels, head_channels, upsampling, skips=2)


class BilinearUpsampling(nn.Module):
    """Bilinear interpolation by an even `factor` as a transposed convolution of fixed weights; zeros outside."""

    weight: Tensor

    def __init__(self, classes: int, factor: int) -> None:
        super().__init__()
        self.classes, self.factor = classes, factor
        kernel = bilinear_kernel(factor).expand(classes, 1, -1, -1).contiguous()
        self.register_buffer("weight", kernel, persistent=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return functional.conv_transpose2d(
            x_NCHW, self.weight, stride=self.factor, padding=self.factor // 2, groups=self.classes
        )


def bilinear_kernel(factor: int) -> Tensor:
    """The weights (2·factor, 2·factor) of bilinear interpolation by an even factor."""
    ramp = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
    return torch.outer(ramp, ramp)


def _vgg16_features(bands: int, first_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = bands
    for count, width in _STAGES:
        for _ in range(count):
            layers += [nn.Conv2d(channels, width * first_channels, 3, padding=1), relu()]
            channels = width * first_channels
        layers.append(nn.MaxPool2d(2, stride=2))
    return nn.Sequential(*layers)


def _upsampling(classes: int, factor: int, upsampling: Upsampling) -> nn.Module:
    if upsampling == "interpolated":
        return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
    if upsampling == "fixed":
        return BilinearUpsampling(classes, factor)
    layer = nn.ConvTranspose2d(classes, classes, 2 * factor, factor, padding=factor // 2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        for label in range(classes):
            layer.weight[label, label] = bilinear_kernel(factor)
    return layer
