"""JPEG's loss on an image as of ITU-T T.81, without the coding."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# ITU-T T.81, annex K.1: how coarsely brightness and colour are kept, by frequency, at quality 50.
_BRIGHTNESS = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
_COLOUR = torch.full((8, 8), 99.0)
_COLOUR[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])
# JFIF: brightness, blueness and redness of red, green and blue.
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_RGB = torch.linalg.inv(_YCC)
_FREQUENCIES = torch.tensor(
    [
        [math.sqrt((1 + (row > 0)) / 8) * math.cos((2 * column + 1) * row * math.pi / 16) for column in range(8)]
        for row in range(8)
    ]
)


def jpeg(image_NHW: Tensor, quality: int) -> Tensor:
    """An image within 0..1 of one or three bands as JPEG of this quality (1 to 100) brings it back.

    Colour is kept at half the resolution, as most scanners do. Other numbers of bands go one by one, as grey.
    """
    bands, height, width = image_NHW.shape
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    padded_NHW = functional.pad(image_NHW[None], (0, -width % 16, 0, -height % 16), mode="replicate")[0] * 255
    if bands != 3:
        return (_kept(padded_NHW - 128, _BRIGHTNESS, scale) + 128)[:, :height, :width].clamp(0, 255) / 255
    ycc_NHW = torch.einsum("ab,bhw->ahw", _YCC, padded_NHW)
    brightness_1HW = _kept(ycc_NHW[:1] - 128, _BRIGHTNESS, scale) + 128
    colour_2HW = _kept(functional.avg_pool2d(ycc_NHW[1:], 2), _COLOUR, scale)
    colour_2HW = functional.interpolate(colour_2HW[None], scale_factor=2.0, mode="bilinear")[0]
    rgb_NHW = torch.einsum("ab,bhw->ahw", _RGB, torch.cat([brightness_1HW, colour_2HW]))
    return rgb_NHW[:, :height, :width].clamp(0, 255) / 255


def _kept(bands_NHW: Tensor, steps: Tensor, scale: float) -> Tensor:
    """Blocks of 8 x 8 as their frequencies, rounded to the table's steps, and back."""
    bands, height, width = bands_NHW.shape
    blocks = bands_NHW.reshape(bands, height // 8, 8, width // 8, 8).permute(0, 1, 3, 2, 4)
    table = (steps * scale).round().clamp(min=1)
    rounded = ((_FREQUENCIES @ blocks @ _FREQUENCIES.T) / table).round() * table
    blocks = _FREQUENCIES.T @ rounded @ _FREQUENCIES
    return blocks.permute(0, 1, 3, 2, 4).reshape(bands, height, width)
