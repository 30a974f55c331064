"""The U-Net of the well-known Keras recipe for Dice loss, after Ronneberger, Fischer and Brox (2015, arXiv:1505.04597).

The recipe: 32 first channels, biases, no batch norm, sigmoid, Dice loss (Milletari et al. 2016, arXiv:1606.04797),
Adam at a learning rate of 1e-5. Loss and optimiser belong to the training configuration.
"""

from __future__ import annotations

from torch import nn

from unet_core.models.blocks import Convs, UShape, doubled, expect_described, expect_range, relu, steps_down, steps_up


class UNetDice(UShape):
    """Same-padded, with biases and without batch norm; `dropout` after each convolution where it is not zero.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits (their sigmoid is the recipe's output),
    H and W multiples of `2 ** depth`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(
        self, bands: int, classes: int, first_channels: int = 32, depth: int = 4, dropout: float = 0.0
    ) -> None:
        expect_described(bands, classes, first_channels)
        expect_range(depth=(depth, 1, 8))
        channels = doubled(first_channels, depth + 1)
        convs = Convs(activation=relu, dropouts=(dropout, dropout) if dropout else ())
        ascending = steps_up(channels)
        super().__init__(
            down=[convs(*step) for step in steps_down(bands, channels)],
            pool=[nn.MaxPool2d(2) for _ in range(depth)],
            up=[nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in ascending],
            merge=[convs(2 * here, here) for _, here in ascending],
            head=nn.Conv2d(first_channels, classes, 1),
        )
