"""Grid of a network's output pixels on the image, for training and for whole images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unet_core.bounds import Footprint, approximate_footprint, footprint, unbounded_layers
from unet_core.bundles.card import Normalization
from unet_core.errors import TrainingError


@dataclass(frozen=True, slots=True)
class OutputGrid:
    """The grid of a network's output: as fine as its input's or a whole number of times finer.

    Networks without padding label the inside of what they see: crops lose their margin, whole images get
    mirrored context. Unbounded networks, which see all of their input anyway, are fine here.
    """

    footprint: Footprint
    scale: tuple[int, int]

    @classmethod
    def of(cls, module: nn.Module, bands: int) -> OutputGrid:
        """Raises TrainingError for an output coarser than the input, which no label map fits."""
        unbounded = bool(unbounded_layers(module, bands))
        found = approximate_footprint(module, bands, 0) if unbounded else footprint(module, bands)
        if any(scale.denominator != 1 for scale in found.scale):
            raise TrainingError(
                f"the network's output is {found.scale[0]} x {found.scale[1]} times as fine as its input: labels need "
                "a whole number; add the upsampling that is missing"
            )
        return cls(found, (int(found.scale[0]), int(found.scale[1])))

    def expect_tile(self, tile_px: int) -> None:
        """Raise TrainingError where the network can't take crops of that side."""
        context, stride = self.footprint.context, math.lcm(*self.footprint.stride)
        lost = context.top + context.bottom
        wanted = lost + max(1, -(-(tile_px - lost) // stride)) * stride
        if tile_px != wanted:
            margin = f" plus the {lost} px that it loses without padding" if lost else ""
            raise TrainingError(
                f"tile_px {tile_px} is not a multiple of the network's stride {stride}{margin}: the network can't "
                f"take such crops; use {wanted}"
            )

    def labels_of(self, maps_NHW: Tensor, output_NCHW: Tensor) -> Tensor:
        """The part of crops' labels or weights that the network's output for those crops stands for, on its grid."""
        for axis in (0, 1):
            if self.scale[axis] > 1:
                maps_NHW = maps_NHW.repeat_interleave(self.scale[axis], dim=axis + 1)
        (top, left), (height, width) = self.footprint.offset, output_NCHW.shape[2:]
        return maps_NHW[:, top : top + height, left : left + width]

    def finer(self, map_HW: NDArray[Any]) -> NDArray[Any]:
        """A whole image's labels on the output's grid."""
        return map_HW if self.scale == (1, 1) else map_HW.repeat(self.scale[0], axis=0).repeat(self.scale[1], axis=1)

    def run(self, module: nn.Module, image_HWN: NDArray[Any], normalization: Normalization) -> Tensor:
        """The logits (1, C, H, W) of one pass over a whole image, mirrored up to the stride and for the context."""
        height, width = image_HWN.shape[:2]
        stride, context = self.footprint.stride, self.footprint.context
        bottom, right = context.bottom + -height % stride[0], context.right + -width % stride[1]
        mirrored = np.pad(image_HWN, ((context.top, bottom), (context.left, right), (0, 0)), mode="reflect")
        device = next(module.parameters()).device
        image_1NHW = torch.from_numpy(mirrored.astype(np.float32)).permute(2, 0, 1)[None].to(device)
        y0, x0, y1, x1 = self.footprint.need((0, 0, height, width), (-context.top, -context.left))
        return module(normalized(image_1NHW, normalization))[:, :, y0:y1, x0:x1]


def normalized(images_NCHW: Tensor, normalization: Normalization) -> Tensor:
    """Float images in raw units, normalised per band, channels last in memory."""
    mean, std = (
        torch.tensor(each, device=images_NCHW.device).reshape(1, -1, 1, 1)
        for each in (normalization.mean, normalization.std)
    )
    return ((images_NCHW - mean) / std).contiguous(memory_format=torch.channels_last)
