"""A U-shaped network on ResNet-34 whose skips are added: LinkNet as D-LinkNet and its kin build it.

Encoder: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016, arXiv:1512.03385).
Decoder: Chaurasia and Culurciello, "LinkNet" (VCIP 2017, arXiv:1707.03718), with the three-convolution end of
Zhou, Zhang and Wu, "D-LinkNet" (CVPR Workshops 2018).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from unet_core.models.blocks import expect_described, relu

_BLOCKS = (3, 4, 6, 3)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and what goes past them, with torchvision's parameter names."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu = relu()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module | None = None
        if stride > 1 or channels_in != channels_out:
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        past_NCHW = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        x_NCHW = self.relu(self.bn1(self.conv1(x_NCHW)))
        return self.relu(self.bn2(self.conv2(x_NCHW)) + past_NCHW)


class ResNet34UNet(nn.Module):
    """ResNet-34 encoder, additive decoder blocks.

    The encoder's parameters are named as torchvision's `resnet34` names them (`conv1`, `bn1`, `layer1` …), so
    that `load_classifier` fills them from a classifier's weights.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of 32.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 64) -> None:
        super().__init__()
        expect_described(bands, classes, first_channels)
        if first_channels % 4:
            raise ValueError(
                f"first_channels must be a multiple of 4 for the decoder's bottlenecks, got {first_channels}"
            )
        one, two, three, four = channels = [first_channels * 2**level for level in range(4)]
        self.conv1 = nn.Conv2d(bands, one, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(one)
        self.relu = relu()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages = [
            _stage(above, here, count, stride)
            for above, here, count, stride in zip([one, *channels], channels, _BLOCKS, (1, 2, 2, 2), strict=False)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.decoder4 = _decoder(four, three)
        self.decoder3 = _decoder(three, two)
        self.decoder2 = _decoder(two, one)
        self.decoder1 = _decoder(one, one)
        self.head = nn.Sequential(
            nn.ConvTranspose2d(one, one // 2, 4, stride=2, padding=1),
            relu(),
            nn.Conv2d(one // 2, one // 2, 3, padding=1),
            relu(),
            nn.Conv2d(one // 2, classes, 3, padding=1),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.maxpool(self.relu(self.bn1(self.conv1(x_NCHW))))
        first = self.layer1(x_NCHW)
        second = self.layer2(first)
        third = self.layer3(second)
        x_NCHW = self.decoder4(self.layer4(third)) + third
        x_NCHW = self.decoder3(x_NCHW) + second
        x_NCHW = self.decoder2(x_NCHW) + first
        return cast("Tensor", self.head(self.decoder1(x_NCHW)))


def _stage(channels_in: int, channels_out: int, count: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1) for _ in range(count - 1)))


def _decoder(channels_in: int, channels_out: int) -> nn.Sequential:
    """Narrowed to a quarter, doubled in extent, widened to the skip's channels."""
    narrow = channels_in // 4
    return nn.Sequential(
        nn.Conv2d(channels_in, narrow, 1),
        nn.BatchNorm2d(narrow),
        relu(),
        nn.ConvTranspose2d(narrow, narrow, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(narrow),
        relu(),
        nn.Conv2d(narrow, channels_out, 1),
        nn.BatchNorm2d(channels_out),
        relu(),
    )
