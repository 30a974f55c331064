"""UNet 3+: Huang et al., "UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation" (ICASSP 2020,
arXiv:2004.08790).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from unet_core.models.blocks import Convs, doubled, expect_described, expect_range

_LEVELS = 5


class UNet3Plus(nn.Module):
    """Each decoder level joins all five scales, brought to its grid and to 64 channels each: 320 in all.

    deep_supervision: a head on every decoder level and the bottom for training, their logits upsampled to the
    input's grid. classification_guided: the paper's module, which tells from the bottom's maximum over the
    whole image whether there is anything to segment, and multiplies the logits by 0 where there is not; that
    maximum has no finite footprint, so such a network tiles approximately only.

    Shapes: `(N, bands, H, W)` float → `(N, classes, H, W)` float logits, H and W multiples of 16.
    Raises ValueError for parameters that describe no network.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        first_channels: int = 64,
        deep_supervision: bool = False,
        classification_guided: bool = False,
        skip_channels: int = 64,
    ) -> None:
        super().__init__()
        expect_described(bands, classes, first_channels)
        expect_range(skip_channels=(skip_channels, 1, 1024))
        channels, double, single = doubled(first_channels, _LEVELS), Convs(norm=True), Convs(count=1, norm=True)
        joined = _LEVELS * skip_channels
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(double(*step) for step in pairwise([bands, *channels]))
        # The decoder from the deepest level up; below it all sources are decoder levels, above it encoder levels.
        self.joins = nn.ModuleList()
        for level in reversed(range(_LEVELS - 1)):
            widths = [*channels[: level + 1], *[joined] * (_LEVELS - 2 - level), channels[-1]]
            brought = [_brought(source - level, width, skip_channels) for source, width in enumerate(widths)]
            self.joins.append(nn.ModuleDict({"brought": nn.ModuleList(brought), "merge": single(joined, joined)}))
        widths = [joined] * (_LEVELS - 1) + [channels[-1]]
        headed = range(_LEVELS if deep_supervision else 1)
        self.head = nn.ModuleList(nn.Conv2d(widths[level], classes, 3, padding=1) for level in headed)
        self.presence: nn.Module | None = None
        if classification_guided:
            self.presence = nn.Sequential(nn.Dropout(), nn.Conv2d(channels[-1], 2, 1), nn.AdaptiveMaxPool2d(1))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        levels = self._decoded(x_NCHW)
        logits_NCHW = cast("Tensor", self.head[0](levels[0]))
        if self.presence is None:
            return logits_NCHW
        return logits_NCHW * self.presence(levels[-1]).argmax(dim=1, keepdim=True)

    def supervised(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """The logits of every head on the input's grid, the finest first, before the module's product.

        With the classification-guided module its logits follow, (N, 2, 1, 1): nothing to segment, something.
        """
        levels = self._decoded(x_NCHW)
        outputs = [_enlarged(head(levels[level]), 2**level) for level, head in enumerate(self.head)]
        if self.presence is not None:
            outputs.append(self.presence(levels[-1]))
        return tuple(outputs)

    def _decoded(self, x_NCHW: Tensor) -> list[Tensor]:
        """The values of all decoder levels, the finest first; the bottom is the last."""
        values: list[Tensor] = []
        for level in self.down:
            values.append(level(self.pool(values[-1]) if values else x_NCHW))
        for level, join in zip(reversed(range(_LEVELS - 1)), self.joins, strict=True):
            parts = cast("nn.ModuleDict", join)
            brought = zip(cast("nn.ModuleList", parts["brought"]), values, strict=True)
            # What lies deeper in the list has been decoded already, what lies higher has not.
            values[level] = parts["merge"](torch.cat([bring(value) for bring, value in brought], dim=1))
        return values


def _brought(deeper: int, channels_in: int, channels_out: int) -> nn.Sequential:
    """To the grid `deeper` levels higher, or so many lower, and to the channels that each scale gets."""
    resample = nn.Identity() if not deeper else nn.MaxPool2d(2**-deeper) if deeper < 0 else _upsampling(2**deeper)
    return nn.Sequential(resample, *Convs(count=1, norm=True)(channels_in, channels_out))


def _upsampling(factor: int) -> nn.Upsample:
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)


def _enlarged(x_NCHW: Tensor, factor: int) -> Tensor:
    return cast("Tensor", _upsampling(factor)(x_NCHW)) if factor > 1 else x_NCHW
