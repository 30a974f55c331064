"""U-Nets with biases and batch norm, after Ronneberger, Fischer and Brox (2015, arXiv:1505.04597).

Batch norm: Ioffe and Szegedy (ICML 2015, arXiv:1502.03167).
"""

from __future__ import annotations

from torch import nn

from unet_core.models.blocks import Convs, UShape, doubled, expect_described, expect_range, relu, steps_down, steps_up


class UNetBN(UShape):
    """32 to 512 channels; batch norm after each convolution, which keeps its bias.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of `2 ** depth`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 32, depth: int = 4) -> None:
        expect_described(bands, classes, first_channels)
        expect_range(depth=(depth, 1, 8))
        channels, convs = doubled(first_channels, depth + 1), Convs(norm=True)
        ascending = steps_up(channels)
        super().__init__(
            down=[convs(*step) for step in steps_down(bands, channels)],
            pool=[nn.MaxPool2d(2) for _ in range(depth)],
            up=[nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in ascending],
            merge=[convs(2 * here, here) for _, here in ascending],
            head=nn.Conv2d(first_channels, classes, 1),
        )


class UNetBNDeconv(UShape):
    """8 to 128 channels; batch norm and ReLU after each transposed convolution too; a 3×3 head.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of `2 ** depth`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 8, depth: int = 4) -> None:
        expect_described(bands, classes, first_channels)
        expect_range(depth=(depth, 1, 8))
        channels, convs = doubled(first_channels, depth + 1), Convs(norm=True)
        ascending = steps_up(channels)
        super().__init__(
            down=[convs(*step) for step in steps_down(bands, channels)],
            pool=[nn.MaxPool2d(2) for _ in range(depth)],
            up=[_deconvolved(below, here) for below, here in ascending],
            merge=[convs(2 * here, here) for _, here in ascending],
            head=nn.Conv2d(first_channels, classes, 3, padding=1),
        )


def _deconvolved(below: int, here: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(below, here, 2, stride=2), nn.BatchNorm2d(here), relu())
