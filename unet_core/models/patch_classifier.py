"""The U-Net's predecessor: Ciresan, Giusti, Gambardella and Schmidhuber, "Deep Neural Networks Segment Neuronal
Membranes in Electron Microscopy Images" (NIPS 2012), run densely after Giusti et al. (ICIP 2013, arXiv:1302.1700).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from unet_core.models.blocks import expect_described, expect_range


class PatchClassifier(nn.Module):
    """Classifies the middle pixel of a square of pixels around it; all pixels of an image in one pass.

    The paper's N4 by default: four convolutions of 48 maps with ReLU, each followed by 2×2 max-pooling, and 200
    hidden units over what is left of a 95² square. In the dense pass poolings move by one pixel and everything
    after them is dilated, so that each output pixel is what `classify` computes from the square around it.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H - side + 1, W - side + 1)` float logits; `side` is 95.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        channels: int = 48,
        hidden: int = 200,
        kernels: Sequence[int] = (4, 5, 4, 4),
        last_kernel: int = 3,
    ) -> None:
        super().__init__()
        expect_described(bands, classes, channels)
        expect_range(hidden=(hidden, 1, 65536), levels=(len(kernels), 1, 6), last_kernel=(last_kernel, 1, 64))
        for kernel in kernels:
            expect_range(kernels=(kernel, 1, 64))
        steps = pairwise([bands, *[channels] * len(kernels)])
        self.convs = nn.ModuleList(nn.Conv2d(*step, kernel) for step, kernel in zip(steps, kernels, strict=True))
        self.hidden = nn.Conv2d(channels, hidden, last_kernel)
        self.head = nn.Conv2d(hidden, classes, 1)
        self.side = last_kernel
        for kernel in reversed(kernels):
            self.side = 2 * self.side + kernel - 1

    def forward(self, x_NCHW: Tensor) -> Tensor:
        dilation = 1
        for conv in self.convs:
            x_NCHW = functional.relu(_dilated(cast("nn.Conv2d", conv), x_NCHW, dilation))
            x_NCHW = functional.max_pool2d(x_NCHW, 2, stride=1, dilation=dilation)
            dilation *= 2
        return cast("Tensor", self.head(functional.relu(_dilated(self.hidden, x_NCHW, dilation))))

    def classify(self, squares_NCHW: Tensor) -> Tensor:
        """The logits (N, classes) of the middle pixels of `squares_NCHW` (N, bands, side, side)."""
        for conv in self.convs:
            squares_NCHW = functional.max_pool2d(functional.relu(conv(squares_NCHW)), 2)
        return cast("Tensor", self.head(functional.relu(self.hidden(squares_NCHW)))).flatten(1)


def _dilated(conv: nn.Conv2d, x_NCHW: Tensor, dilation: int) -> Tensor:
    return functional.conv2d(x_NCHW, conv.weight, conv.bias, dilation=dilation)
