"""Tiles in, labels out, as fast as the device allows.

What makes it fast, and keeps the labels: batch norm folded into the convolution before it, channels-last
memory, inference mode, each layer computed only where the core needs it (`unet_core.bounds`), and one byte
per pixel leaving the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from unet_core.bounds import Edges, inferred, minimal
from unet_core.bundle import Bundle
from unet_core.card import Decision
from unet_core.errors import PredictionError

MATHS_VERSION = 1
"""Raised by every change that can change a label, so that no run resumes across it."""

Precision = Literal["float32", "bfloat16"]
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Region:
    """What is wanted of a read: `(y0, x0, y1, x1)` relative to its corner, and which of its sides are image edges."""

    need: tuple[int, int, int, int]
    edges: Edges


class Predictor:
    """A network ready to label tiles on one device.

    Args:
        bundle: the model.
        precision: the dtype of the network's arithmetic.
        device: where it runs.
    """

    def __init__(self, bundle: Bundle, *, precision: Precision = "float32", device: str = "cpu") -> None:
        self._card = bundle.card
        self._device = torch.device(device)
        self._dtype = _DTYPES[precision]
        folded = fold(bundle.module)
        self._recorded = inferred(folded, len(bundle.card.bands))
        self._network = folded.to(self._device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graphs: dict[tuple[tuple[int, int], Region], nn.Module] = {}
        mean, std = bundle.card.normalization.mean, bundle.card.normalization.std
        self._mean = torch.tensor(mean, device=self._device).view(1, -1, 1, 1)
        self._scale = 1.0 / torch.tensor(std, device=self._device).view(1, -1, 1, 1)

    def predict(self, tile_HWC: NDArray[np.generic], region: Region) -> NDArray[np.uint8]:
        """Label the wanted region of one tile.

        Args:
            tile_HWC: the read, `(y, x, band)`, in the card's bands and dtype.
            region: which part of it is wanted.

        Returns:
            Labels `(y, x)` of the wanted region.

        Raises:
            PredictionError: other bands or another dtype than the card's, or logits that aren't finite.
        """
        self._check(tile_HWC)
        with torch.inference_mode():
            logits_NCHW = self._logits(tile_HWC, region)
            if not bool(torch.isfinite(logits_NCHW).all()):
                raise PredictionError(
                    "the network gave logits that are not finite: a label would be noise; "
                    "check the image for NaN and the model's weights, or use --precision float32"
                )
            labels_HW = decide(logits_NCHW, self._card.decision)[0]
            return cast("NDArray[np.uint8]", labels_HW.cpu().numpy())

    def _logits(self, tile_HWC: NDArray[np.generic], region: Region) -> Tensor:
        # A (1, H, W, C) array seen as (1, C, H, W) is channels-last already: nothing is copied.
        tile_NCHW = torch.from_numpy(tile_HWC).to(self._device).permute(2, 0, 1).unsqueeze(0)
        inputs_NCHW = ((tile_NCHW.float() - self._mean) * self._scale).to(self._dtype)
        height, width = tile_HWC.shape[:2]
        return cast("Tensor", self._minimal((height, width), region)(inputs_NCHW))

    def _minimal(self, read_px: tuple[int, int], region: Region) -> nn.Module:
        """The graph for one kind of tile: a plan has a handful (inside, and along each side), so all are kept."""
        key = (read_px, region)
        if key not in self._graphs:
            bands = len(self._card.bands)
            self._graphs[key] = minimal(
                self._network, bands, read_px=read_px, need=region.need, edges=region.edges, network=self._recorded
            )
        return self._graphs[key]

    def _check(self, tile_HWC: NDArray[np.generic]) -> None:
        bands, dtype = len(self._card.bands), self._card.dtype
        if tile_HWC.shape[-1] != bands or tile_HWC.dtype != np.dtype(dtype):
            raise PredictionError(
                f"model {self._card.name} takes {bands} band(s) of {dtype}, this tile has {tile_HWC.shape[-1]} of "
                f"{tile_HWC.dtype}; use a model for such images or convert them"
            )


def fold(module: nn.Module) -> nn.Module:
    """The same network with every batch norm folded into the convolution before it."""
    return fuse(module.eval())


def decide(logits_NCHW: Tensor, decision: Decision) -> Tensor:
    """Labels `(N, H, W)` uint8 from logits `(N, C, H, W)`, by the card's rule."""
    if decision.rule == "argmax":
        return logits_NCHW.argmax(1).to(torch.uint8)
    thresholds = torch.tensor(decision.thresholds, dtype=torch.float32, device=logits_NCHW.device)
    if len(decision.thresholds) == 1:
        # Sigmoid is monotonous: comparing the logit saves an exponential per pixel.
        return (logits_NCHW[:, 0] > torch.logit(thresholds)[0]).to(torch.uint8)
    factor_NCHW = torch.sigmoid(logits_NCHW.float()) / thresholds.view(1, -1, 1, 1)
    best_NHW, label_NHW = factor_NCHW.max(1)
    return torch.where(best_NHW > 1, label_NHW + 1, 0).to(torch.uint8)
