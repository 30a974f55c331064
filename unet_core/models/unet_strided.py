"""A U-Net that learns its downsampling, after Ronneberger, Fischer and Brox (2015, arXiv:1505.04597).

Strided convolutions in place of pooling follow Springenberg et al. (2015, arXiv:1412.6806); nearest-neighbour
upsampling in place of transposed convolutions follows Odena et al. (2016, doi:10.23915/distill.00003).
"""

from __future__ import annotations

from torch import nn

from unet_core.models.blocks import Convs, UShape, doubled, expect_described, expect_range, steps_down, steps_up


class UNetStrided(UShape):
    """Strided 3×3 convolutions down, nearest and a 1×1 convolution up, batch norm, dropout 0.3 and 0.4, LeakyReLU.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of `2 ** depth`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 64, depth: int = 4) -> None:
        expect_described(bands, classes, first_channels)
        expect_range(depth=(depth, 1, 8))
        channels = doubled(first_channels, depth + 1)
        convs = Convs(norm=True, activation=nn.LeakyReLU, dropouts=(0.3, 0.4))
        ascending = steps_up(channels)
        super().__init__(
            down=[convs(*step) for step in steps_down(bands, channels)],
            pool=[_halved(here) for here in channels[:-1]],
            up=[nn.Sequential(nn.Conv2d(below, here, 1), nn.Upsample(scale_factor=2)) for below, here in ascending],
            merge=[convs(2 * here, here) for _, here in ascending],
            head=nn.Conv2d(first_channels, classes, 3, padding=1),
        )


def _halved(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU())
