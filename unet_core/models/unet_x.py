"""The U-Nets of Chen, Chen, Xu and Koltun, "Learning to See in the Dark" (CVPR 2018, arXiv:1805.01934).

LeakyReLU of slope 0.2 and transposed convolutions without bias, regularised by the L2 norm of the weights (the
training configuration's weight decay). The ×3 form ends in a depth-to-space of 3, as for the X-Trans sensor.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from unet_core.models.blocks import Convs, UShape, doubled, expect_described, expect_range, steps_down, steps_up


class _SlopedUNet(UShape):
    def __init__(self, bands: int, first_channels: int, depth: int, head: nn.Module) -> None:
        expect_range(depth=(depth, 1, 8))
        channels = doubled(first_channels, depth + 1)
        convs = Convs(activation=partial(nn.LeakyReLU, 0.2, inplace=True))
        ascending = steps_up(channels)
        super().__init__(
            down=[convs(*step) for step in steps_down(bands, channels)],
            pool=[nn.MaxPool2d(2) for _ in range(depth)],
            up=[nn.ConvTranspose2d(below, here, 2, stride=2, bias=False) for below, here in ascending],
            merge=[convs(2 * here, here) for _, here in ascending],
            head=head,
        )


class UNetX1(_SlopedUNet):
    """Logits on the input's own grid.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float, H and W multiples of `2 ** depth`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 32, depth: int = 4) -> None:
        expect_described(bands, classes, first_channels)
        super().__init__(bands, first_channels, depth, nn.Conv2d(first_channels, classes, 1))


class UNetX3(_SlopedUNet):
    """Logits on a grid three times finer: the head's 9 · `classes` channels become 3 × 3 pixels (27 for 3 classes).

    Shapes: `(N, bands, H, W)` float → `(N, classes, 3·H, 3·W)` float, H and W multiples of `2 ** depth`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(self, bands: int, classes: int, first_channels: int = 32, depth: int = 4) -> None:
        expect_described(bands, classes, first_channels)
        head = nn.Sequential(nn.Conv2d(first_channels, 9 * classes, 1), nn.PixelShuffle(3))
        super().__init__(bands, first_channels, depth, head)
