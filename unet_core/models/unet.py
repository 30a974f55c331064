"""The U-Net of Ronneberger, Fischer and Brox (MICCAI 2015, arXiv:1505.04597), same-padded, with batch norm."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from unet_core.models.blocks import DoubleConv


class UNet(nn.Module):
    """Same-padded U-Net: logits come out on the input's own pixel grid.

    Each level has two 3×3 convolutions with batch norm and ReLU; max-pooling halves the grid `depth` times
    and doubles the channels; transposed convolutions bring it back, with the skip concatenated in front.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float, H and W multiples of `2 ** depth`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 64, depth: int = 4) -> None:
        super().__init__()
        for name, value, limit in (
            ("bands", bands, 4096),
            ("classes", classes, 255),
            ("first_channels", first_channels, 1024),
            ("depth", depth, 8),
        ):
            if not 1 <= value <= limit:
                raise ValueError(f"{name} must lie in 1..{limit}, got {value}")
        channels = [first_channels * 2**level for level in range(depth + 1)]
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.down = nn.ModuleList(
            DoubleConv(above, here) for above, here in zip([bands, *channels[:-2]], channels[:-1], strict=True)
        )
        self.bottom = DoubleConv(channels[-2], channels[-1])
        ascending = list(zip(reversed(channels[1:]), reversed(channels[:-1]), strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in ascending)
        self.merge = nn.ModuleList(DoubleConv(2 * here, here) for _, here in ascending)
        self.head = nn.Conv2d(first_channels, classes, kernel_size=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level in self.down:
            x_NCHW = level(x_NCHW)
            skips.append(x_NCHW)
            x_NCHW = self.pool(x_NCHW)
        x_NCHW = self.bottom(x_NCHW)
        for up, merge, skip_NCHW in zip(self.up, self.merge, reversed(skips), strict=True):
            x_NCHW = merge(torch.cat([skip_NCHW, up(x_NCHW)], dim=1))
        return cast("Tensor", self.head(x_NCHW))
