"""Blocks that several networks share."""

from __future__ import annotations

from torch import Tensor, nn


class DoubleConv(nn.Module):
    """Two 3×3 convolutions, each followed by batch norm and ReLU; same-padded, so H and W stay.

    The convolutions carry no bias: batch norm's own shift makes it redundant (Ioffe and Szegedy 2015).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.relu1(self.norm1(self.conv1(x_NCHW)))
        return self.relu2(self.norm2(self.conv2(x_NCHW)))
