"""UNet++: Zhou, Siddiquee, Tajbakhsh and Liang, "UNet++" (DLMIA 2018, arXiv:1807.10165)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from unet_core.models.blocks import Convs, doubled, expect_described, expect_range


class UNetPlusPlus(nn.Module):
    """Nested dense skips: node X^{i,j} joins all nodes left of it on its level with the one below, brought up.

    level: how many levels lie below the first, and which node X^{0,level} gives the logits. deep_supervision:
    a head on every X^{0,1…level} for training; the logits are those of the last. `pruned` makes the smaller
    network of a lower level, in which the nodes that its head doesn't need are gone.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of `2 ** level`.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(
        self, bands: int, classes: int, first_channels: int = 32, level: int = 4, deep_supervision: bool = False
    ) -> None:
        super().__init__()
        expect_described(bands, classes, first_channels)
        expect_range(level=(level, 1, 8))
        self.bands, self.classes, self.level = bands, classes, level
        channels, convs = doubled(first_channels, level + 1), Convs()
        self.pool = nn.MaxPool2d(2)
        self.nodes = nn.ModuleDict()
        self.up = nn.ModuleDict()
        for j in range(level + 1):
            for i in range(level + 1 - j):
                here = channels[i]
                if j:
                    self.up[f"{i}_{j}"] = nn.ConvTranspose2d(channels[i + 1], here, 2, stride=2)
                channels_in = (j + 1) * here if j else (channels[i - 1] if i else bands)
                self.nodes[f"{i}_{j}"] = convs(channels_in, here)
        headed = range(1, level + 1) if deep_supervision else (level,)
        self.head = nn.ModuleDict({str(j): nn.Conv2d(first_channels, classes, 1) for j in headed})

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.supervised(x_NCHW)[-1]

    def supervised(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """The logits of every head, each shaped as `forward`'s, the deepest last."""
        values: dict[tuple[int, int], Tensor] = {}
        for i in range(self.level + 1):
            # Down the left side one node at a time, and from each up its diagonal to the first level.
            source = self.pool(values[i - 1, 0]) if i else x_NCHW
            values[i, 0] = self.nodes[f"{i}_0"](source)
            for j in range(1, i + 1):
                row = i - j
                below = self.up[f"{row}_{j}"](values[row + 1, j - 1])
                beside = [values[row, k] for k in range(j)]
                values[row, j] = self.nodes[f"{row}_{j}"](torch.cat([*beside, below], dim=1))
        return tuple(cast("Tensor", head(values[0, int(j)])) for j, head in self.head.items())

    def pruned(self, level: int) -> UNetPlusPlus:
        """L1, L2 …: the network that computes the head of `level` and nothing else, with copies of its weights.

        Raises ValueError where there is no head at that level.
        """
        if str(level) not in self.head:
            raise ValueError(
                f"level {level} has no head of its own, only {', '.join(self.head)} have: its output would be "
                "untrained; train with deep_supervision"
            )
        first = cast("nn.Conv2d", self.head[str(level)])
        with torch.device("meta"):
            smaller = UNetPlusPlus(self.bands, self.classes, first.in_channels, level)
        smaller = smaller.to_empty(device=first.weight.device).to(first.weight.dtype)
        own = self.state_dict()
        smaller.load_state_dict({name: own[name] for name in smaller.state_dict()})
        return smaller.train(self.training)
