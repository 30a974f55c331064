"""The U-Net as published: Ronneberger, Fischer and Brox (MICCAI 2015, arXiv:1505.04597), without padding."""

from __future__ import annotations

from torch import nn

from unet_core.models.blocks import (
    Convs,
    UShape,
    doubled,
    expect_described,
    expect_range,
    init_he,
    relu,
    steps_down,
    steps_up,
)


class UNetOriginal(UShape):
    """Unpadded convolutions, no batch norm, skips cut to their centre, dropout at the end of the way down.

    The logits are those of the pixels whose whole context lies in the image: 388² for 572² at depth 4. To label
    the borders too, the image is mirrored outside by the footprint's `context`, as the paper says.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H - 184, W - 184)` float logits at depth 4, for H and W that
    every pooling halves evenly (572 ± 16·k).
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 64, depth: int = 4) -> None:
        expect_described(bands, classes, first_channels)
        expect_range(depth=(depth, 1, 8))
        channels = doubled(first_channels, depth + 1)
        convs, last = Convs(padded=False), Convs(padded=False, dropouts=(0.0, 0.5))
        ascending = steps_up(channels)
        super().__init__(
            down=[(last if i >= depth - 1 else convs)(*step) for i, step in enumerate(steps_down(bands, channels))],
            pool=[nn.MaxPool2d(2) for _ in range(depth)],
            up=[nn.Sequential(nn.ConvTranspose2d(below, here, 2, stride=2), relu()) for below, here in ascending],
            merge=[convs(2 * here, here) for _, here in ascending],
            head=nn.Conv2d(first_channels, classes, 1),
        )
        init_he(self)
