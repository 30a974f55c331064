"""One read's whole way on the device: pixels in, labels and a verdict out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from unet_core.bounds import Strip
from unet_core.bundles.card import Normalization
from unet_core.inference.decision import Decide
from unet_core.inference.tta import Symmetry


class Normalize(nn.Module):
    """Maps pixels `(y, x, band)` of `width` to the network's inputs `(1, band, y, x)`, in channels-last memory."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        # A whole row at a time: along the few bands alone the processor's vectors would stay empty.
        self.register_buffer("mean", torch.tensor(normalization.mean).repeat(width))
        self.register_buffer("std", torch.tensor(normalization.std).repeat(width))

    def forward(self, pixels_HWC: Tensor) -> Tensor:
        height, width, bands = pixels_HWC.shape
        rows = pixels_HWC.reshape(height, width * bands).to(torch.float32, copy=True)
        rows.sub_(self.mean).div_(self.std)
        # A (1, y, x, band) array seen as (1, band, y, x) is channels-last already: nothing is copied.
        return rows.to(self.dtype).view(1, height, width, bands).permute(0, 3, 1, 2)


class Pass(nn.Module):
    """One pass of the network over the read as one symmetry shows it.

    Args:
        network: maps `(1, bands, y, x)` to the logits of the wanted region.
        symmetry: how the network sees the read.
        normalization: the card's.
        width: of the read as the network sees it, in pixels.
        dtype: of the network's arithmetic.
    """

    def __init__(
        self, network: nn.Module, symmetry: Symmetry, normalization: Normalization, width: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.network = network
        self.symmetry = symmetry
        self.normalize = Normalize(normalization, width, dtype)

    def forward(self, tile_HWC: Tensor) -> Tensor:
        inputs_NCHW = self.normalize(self.symmetry.of_tile(tile_HWC))
        return self.symmetry.undo(cast("Tensor", self.network(inputs_NCHW)))


class Step(nn.Module):
    """Maps a read `(y, x, band)` to (is_finite, labels `(y, x)` uint8[, probabilities `(C, y, x)` uint8]).

    The logits never leave the device, and whether they are finite travels with the labels, so nothing waits.
    """

    def __init__(self, passes: Sequence[Pass], decide: Decide, *, probabilities: bool) -> None:
        super().__init__()
        self.passes = nn.ModuleList(passes)
        self.decide = decide
        self.probabilities = probabilities

    def forward(self, tile_HWC: Tensor) -> tuple[Tensor, ...]:
        return decided(self._logits(tile_HWC), self.decide, probabilities=self.probabilities)

    def _logits(self, tile_HWC: Tensor) -> Tensor:
        """Logits of one pass, or the mean over all symmetries, in float32."""
        first, *others = self.passes
        logits_NCHW = cast("Tensor", first(tile_HWC))
        if not others:
            return logits_NCHW
        total_NCHW = logits_NCHW.float()
        for another in others:
            total_NCHW = total_NCHW + another(tile_HWC)
        return total_NCHW / len(self.passes)


def decided(logits_NCHW: Tensor, decide: Decide, *, probabilities: bool) -> tuple[Tensor, ...]:
    """Verdict whether one tile's logits are finite, labels `(y, x)`, and probabilities `(C, y, x)` if asked for."""
    # NaN propagates through the minimum and the maximum: both are finite only where all logits are.
    least, greatest = torch.aminmax(logits_NCHW)
    is_finite = torch.isfinite(least) & torch.isfinite(greatest)
    labels_HW = decide(logits_NCHW)[0]
    return (is_finite, labels_HW, decide.probabilities(logits_NCHW)[0]) if probabilities else (is_finite, labels_HW)


class StripStep(nn.Module):
    """A step of one pass that goes strip by strip from the top: only labels and kept rows outlive a strip.

    Args:
        strips: of the wanted region, in order.
        normalize: makes a strip's inputs of its pixels.
        decide: makes labels of its logits.
        probabilities: whether they are asked for.
    """

    def __init__(self, strips: Sequence[Strip], normalize: Normalize, decide: Decide, *, probabilities: bool) -> None:
        super().__init__()
        self.reads = [(strip.read.lo, strip.read.hi) for strip in strips]
        self.modules_of_strips = nn.ModuleList(strip.module for strip in strips)
        self.normalize = normalize
        self.decide = decide
        self.probabilities = probabilities

    def forward(self, tile_HWC: Tensor) -> tuple[Tensor, ...]:
        kept: list[Tensor] = []
        found: list[tuple[Tensor, ...]] = []
        for (start, stop), module in zip(self.reads, self.modules_of_strips, strict=True):
            logits_NCHW, *kept = module(self.normalize(tile_HWC[start:stop]), *kept)
            found.append(decided(logits_NCHW, self.decide, probabilities=self.probabilities))
        is_finite, labels, *rest = zip(*found, strict=True)
        return torch.stack(is_finite).all(), torch.cat(labels), *(torch.cat(each, 1) for each in rest)
