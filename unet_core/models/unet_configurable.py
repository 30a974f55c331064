"""A U-Net whose every choice is a parameter, after Ronneberger, Fischer and Brox (2015, arXiv:1505.04597).

Pixel shuffle: Shi et al. (CVPR 2016, arXiv:1609.05158). Max-unpooling: Zeiler and Fergus (ECCV 2014,
arXiv:1311.2901), as SegNet uses it (Badrinarayanan et al., arXiv:1511.00561).
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unet_core.models.blocks import Convs, centre, doubled, expect_described, expect_range, steps_down, steps_up

Up = Literal["transposed", "bilinear", "nearest", "pixel_shuffle", "max_unpool"]
_UPS = ("transposed", "bilinear", "nearest", "pixel_shuffle", "max_unpool")


class UNetConfigurable(nn.Module):
    """A U-Net of `depth` levels with `convolutions` per level.

    factor: how much coarser each level's grid is than the one above. skips: whether what a level saw on the way
    down is joined on the way up. padding: "same" keeps the extent, "valid" computes only pixels whose whole
    context is in the image, and cuts skips to their centre. up: "transposed" convolutions; "bilinear" or
    "nearest" interpolation, "pixel_shuffle" or "max_unpool", each after a 1×1 convolution to the channels above.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of
    `factor ** (depth - 1)`; fewer rows and columns with "valid" padding.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        first_channels: int = 64,
        depth: int = 5,
        convolutions: int = 2,
        factor: int = 2,
        skips: bool = True,
        padding: Literal["same", "valid"] = "same",
        up: Up = "transposed",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        expect_described(bands, classes, first_channels)
        expect_range(depth=(depth, 1, 9), convolutions=(convolutions, 1, 8), factor=(factor, 2, 8))
        if up not in _UPS or padding not in ("same", "valid"):
            raise ValueError(f"up is one of {', '.join(_UPS)} and padding same or valid, got {up!r} and {padding!r}")
        if up == "max_unpool" and padding == "valid":
            raise ValueError("max-unpooling puts pixels back where pooling found them, which padding 'valid' cuts off")
        self.factor, self.skips, self.unpools = (factor, factor), skips, up == "max_unpool"
        channels = doubled(first_channels, depth)
        convs = Convs(convolutions, norm=batch_norm, padded=padding == "same")
        self.down = nn.ModuleList(convs(*step) for step in steps_down(bands, channels))
        self.up = nn.ModuleList(_up(below, here, factor, up) for below, here in steps_up(channels))
        self.merge = nn.ModuleList(convs(2 * here if skips else here, here) for _, here in steps_up(channels))
        self.head = nn.Conv2d(first_channels, classes, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        skips: list[Tensor] = []
        places: list[Tensor] = []
        for level in self.down[:-1]:
            skips.append(level(x_NCHW))
            if self.unpools:
                x_NCHW, indices = functional.max_pool2d_with_indices(skips[-1], self.factor)
                places.append(indices)
            else:
                x_NCHW = functional.max_pool2d(skips[-1], self.factor)
        x_NCHW = self.down[-1](x_NCHW)
        for up, merge in zip(self.up, self.merge, strict=True):
            x_NCHW = up(x_NCHW)
            if self.unpools:
                x_NCHW = functional.max_unpool2d(x_NCHW, places.pop(), self.factor)
            skip_NCHW = skips.pop()
            joined = torch.cat([centre(skip_NCHW, x_NCHW), x_NCHW], dim=1) if self.skips else x_NCHW
            x_NCHW = merge(joined)
        return cast("Tensor", self.head(x_NCHW))


def _up(below: int, here: int, factor: int, up: Up) -> nn.Module:
    match up:
        case "transposed":
            return nn.ConvTranspose2d(below, here, factor, stride=factor)
        case "pixel_shuffle":
            return nn.Sequential(nn.Conv2d(below, here * factor**2, 1), nn.PixelShuffle(factor))
        case "bilinear":
            return nn.Sequential(nn.Conv2d(below, here, 1), nn.Upsample(scale_factor=factor, mode="bilinear"))
        case "nearest":
            return nn.Sequential(nn.Conv2d(below, here, 1), nn.Upsample(scale_factor=factor, mode="nearest"))
        case "max_unpool":
            return nn.Conv2d(below, here, 1)
