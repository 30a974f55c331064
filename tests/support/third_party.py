"""A network as others write them: none of overtile's layers, skips padded to size, bilinear upsampling to the skip.

It stands in for the user's own code; tests import it by name, as `--model third_party:make_net` does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBlock(nn.Module):
    """Two convolutions; the first normalised, the second followed by a leaky activation."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out)
        )
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.dropout = nn.Dropout2d(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.seq(x), inplace=True)
        return self.dropout(functional.leaky_relu_(self.second(x), 0.1))


class Net(nn.Module):
    """Three levels; the upper one is reached by interpolation to the skip's size, the lower by deconvolution."""

    def __init__(self, bands: int = 3, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.enter, self.down = ConvBlock(bands, width), ConvBlock(width, 2 * width)
        self.deepest = ConvBlock(2 * width, 2 * width)
        self.deconv = nn.ConvTranspose2d(2 * width, 2 * width, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.up, self.leave = ConvBlock(4 * width, width), ConvBlock(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        second = self.down(functional.max_pool2d(first, 2))
        deep = self.norm(self.deconv(self.deepest(functional.avg_pool2d(second, 2))))
        rows, columns = second.size(2) - deep.size(2), second.size(3) - deep.size(3)
        deep = functional.pad(deep, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        low = self.up(torch.cat([second, deep], dim=1))
        low = functional.interpolate(low, size=first.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(self.leave(torch.cat([first, low], dim=1)))


def make_net() -> nn.Module:
    """What `--model third_party:make_net` calls; its weights come from a file."""
    return Net()


def make_nothing_on_two_lines() -> nn.Module:
    """As torch says that weights don't fit."""
    raise RuntimeError("size mismatch for stem:\n\t3, 4")


def make_text() -> str:
    """A factory that gives no network."""
    return "no network"


def make_globally() -> nn.Module:
    """A network that sees the whole image at every pixel."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
