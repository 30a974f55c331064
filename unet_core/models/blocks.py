"""Blocks that several networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

relu = partial(nn.ReLU, inplace=True)


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


@dataclass(frozen=True, slots=True)
class Convs:
    """Convolutions of one level of a network: 3×3 with bias, each with its norm, dropout and activation.

    padded: same-padded; otherwise each convolution takes a pixel off every side.
    dropouts: one probability per convolution; none where it is empty.
    """

    count: int = 2
    norm: bool = False
    padded: bool = True
    activation: Callable[[], nn.Module] = relu
    dropouts: tuple[float, ...] = ()

    def __call__(self, channels_in: int, channels_out: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for index in range(self.count):
            channels = channels_out if index else channels_in
            layers.append(nn.Conv2d(channels, channels_out, kernel_size=3, padding=int(self.padded)))
            if self.norm:
                layers.append(nn.BatchNorm2d(channels_out))
            if self.dropouts:
                layers.append(nn.Dropout(self.dropouts[index]))
            layers.append(self.activation())
        return nn.Sequential(*layers)


class UShape(nn.Module):
    """The walk of every U-Net: down with a skip kept per level, then up with the skips joined in front.

    A skip that is larger than what comes up is cut to its centre, as unpadded networks need. There is one
    module more in `down` than in the others: the last one is the bottom.
    """

    def __init__(
        self,
        down: Iterable[nn.Module],
        pool: Iterable[nn.Module],
        up: Iterable[nn.Module],
        merge: Iterable[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(down)
        self.pool = nn.ModuleList(pool)
        self.up = nn.ModuleList(up)
        self.merge = nn.ModuleList(merge)
        self.head = head

    def forward(self, x_NCHW: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, pool in zip(self.down, self.pool, strict=False):
            skips.append(level(x_NCHW))
            x_NCHW = pool(skips[-1])
        x_NCHW = self.down[-1](x_NCHW)
        for up, merge in zip(self.up, self.merge, strict=True):
            x_NCHW = up(x_NCHW)
            x_NCHW = merge(torch.cat([centre(skips.pop(), x_NCHW), x_NCHW], dim=1))
        return cast("Tensor", self.head(x_NCHW))


def centre(x_NCHW: Tensor, like_NCHW: Tensor) -> Tensor:
    """The centre of `x_NCHW` with the extent of `like_NCHW`; the spare pixel of an odd rest goes to the far side."""
    if x_NCHW.shape[2:] == like_NCHW.shape[2:]:
        return x_NCHW
    height, width = like_NCHW.shape[2:]
    top, left = (x_NCHW.shape[2] - height) // 2, (x_NCHW.shape[3] - width) // 2
    return x_NCHW[:, :, top : top + height, left : left + width]


def doubled(first_channels: int, levels: int) -> list[int]:
    """Channels per level, doubled at each."""
    return [first_channels * 2**level for level in range(levels)]


def steps_down(bands: int, channels: Sequence[int]) -> list[tuple[int, int]]:
    """(channels in, channels out) of each level on the way down."""
    return list(pairwise([bands, *channels]))


def steps_up(channels: Sequence[int]) -> list[tuple[int, int]]:
    """(channels below, channels here) of each level on the way up."""
    return list(pairwise(reversed(channels)))


def init_he(module: nn.Module) -> None:
    """Weights from a Gaussian of standard deviation √(2/N), N the inputs of a unit; no bias (He et al. 2015)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def expect_range(**given: tuple[int, int, int]) -> None:
    """Refuse numbers outside their range, given by name as (value, least, most); raises ValueError."""
    for name, (value, least, most) in given.items():
        if not least <= value <= most:
            raise ValueError(f"{name} must lie in {least}..{most}, got {value}")


def expect_described(bands: int, classes: int, first_channels: int) -> None:
    """Refuse what no network has; raises ValueError."""
    expect_range(bands=(bands, 1, 4096), classes=(classes, 1, 255), first_channels=(first_channels, 1, 1024))
