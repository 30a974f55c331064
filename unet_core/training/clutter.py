"""Clutter on slides that is no object: pen strokes, red cells, and holes such as fat, lumens and tears."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Densities in red, green, blue: eosin as red cells have it, lightest and darkest; pens in green, blue, black, red.
_RED_CELLS = np.array([[0.02, 0.35, 0.25], [0.25, 1.1, 1.0]])
_PENS = np.array([[1.6, 0.5, 1.2], [1.8, 1.1, 0.3], [1.8, 1.7, 1.6], [0.2, 1.5, 1.2]])


def clutter(image_NHW: Tensor, labels_HW: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A bright-field image within 0..1 with one kind of clutter, and its labels.

    Red cells lie on the ground alone; pens and holes hide what they cover, which is then ground.
    """
    kind = random.integers(3)
    if kind == 0:
        return _red_cells(image_NHW, labels_HW, random), labels_HW
    return (_pen if kind == 1 else _holes)(image_NHW, labels_HW, random)


def _red_cells(image_NHW: Tensor, labels_HW: Tensor, random: np.random.Generator) -> Tensor:
    """Smooth discs, often in groups, paler in the middle."""
    radius = random.uniform(3, 18)
    depth_HW = np.zeros(labels_HW.shape, np.float32)
    middle = random.uniform(0, 1, 2) * labels_HW.shape
    spread = random.uniform(2, 12) * radius
    for _ in range(int(random.integers(3, 40))):
        _draw_disc(depth_HW, middle + random.normal(0, spread, 2), radius * random.uniform(0.8, 1.2), random)
    colour = random.uniform(_RED_CELLS[0], _RED_CELLS[1])
    density_HW = torch.from_numpy(depth_HW) * (labels_HW == 0)
    return image_NHW * torch.exp(-_coloured(colour, density_HW))


def _draw_disc(
    depth_HW: NDArray[np.float32], centre: NDArray[np.float64], radius: float, random: np.random.Generator
) -> None:
    height, width = depth_HW.shape
    y0, y1 = max(0, int(centre[0] - radius - 2)), min(height, int(centre[0] + radius + 3))
    x0, x1 = max(0, int(centre[1] - radius - 2)), min(width, int(centre[1] + radius + 3))
    pallor = random.uniform(0, 0.6)
    if y0 >= y1 or x0 >= x1:
        return
    distance = np.hypot(np.arange(y0, y1)[:, None] - centre[0], np.arange(x0, x1)[None] - centre[1])
    disc = np.clip(radius - distance + 0.5, 0, 1) * (1 - pallor * np.exp(-((2 * distance / radius) ** 2)))
    depth_HW[y0:y1, x0:x1] = np.maximum(depth_HW[y0:y1, x0:x1], disc)


def _pen(image_NHW: Tensor, labels_HW: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One bent stroke through the crop, a pen's or a hair; what it hides is ground."""
    height, width = labels_HW.shape
    y_HW, x_HW = _places(height, width)
    angle, bend = random.uniform(0, math.pi), random.normal(0, 0.3)
    # From a hair of a few pixels to a broad marker, sharp or far out of focus.
    across = math.exp(random.uniform(math.log(0.005), math.log(0.35))) * max(height, width)
    along_HW = math.cos(angle) * x_HW + math.sin(angle) * y_HW
    off_HW = -math.sin(angle) * x_HW + math.cos(angle) * y_HW + bend * along_HW**2 - random.uniform(-0.4, 0.4)
    soft = math.exp(random.uniform(math.log(0.4), math.log(max(0.5, 0.4 * across))))
    cover_HW = torch.sigmoid((across - (off_HW * max(height, width)).abs()) / soft)
    grain_HW = torch.from_numpy(random.normal(0, random.uniform(0, 0.08), (height, width)).astype(np.float32))
    colour = _PENS[int(random.integers(len(_PENS)))] * random.uniform(0.5, 1.5)
    inked_NHW = image_NHW * torch.exp(-_coloured(colour, cover_HW * (1 + grain_HW)))
    # Under thin ink nuclei can still be seen; under thick ink nobody could tell.
    if colour.mean() < 0.8:
        return inked_NHW, labels_HW
    flat_NHW = torch.exp(-_coloured(colour, 1 + grain_HW)).clamp(0, 1)
    covered_NHW = image_NHW * (1 - cover_HW) + flat_NHW * cover_HW
    return covered_NHW, torch.where(cover_HW > 0.5, 0, labels_HW)


def _holes(image_NHW: Tensor, labels_HW: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Glass in round holes with a thin rim of tissue, as in fat, or around all of a blob, as at a tissue's edge."""
    height, width = labels_HW.shape
    y_HW, x_HW = _places(height, width)
    side, inside_HW = max(height, width), torch.full(labels_HW.shape, -torch.inf)
    for _ in range(int(random.integers(1, 6))):
        cy, cx = random.uniform(-0.6, 0.6, 2)
        radius, stretch, angle = random.uniform(0.05, 0.4), random.uniform(0.5, 1), random.uniform(0, math.pi)
        along_HW = math.cos(angle) * (x_HW - cx) + math.sin(angle) * (y_HW - cy)
        off_HW = (math.cos(angle) * (y_HW - cy) - math.sin(angle) * (x_HW - cx)) / stretch
        inside_HW = torch.maximum(inside_HW, (radius - torch.hypot(along_HW, off_HW)) * side)
    soft, rim = random.uniform(0.4, 2), random.uniform(1, 5)
    open_HW = torch.sigmoid(inside_HW / soft)
    rim_HW = torch.exp(-((inside_HW / rim) ** 2)) * random.uniform(0, 0.8)
    glass = torch.from_numpy(random.uniform(0.85, 1.0) * random.uniform(0.96, 1, 3).astype(np.float32))
    opened_NHW = image_NHW * (1 - open_HW) + glass[:, None, None] * open_HW
    colour = random.uniform([0.02, 0.2, 0.05], [0.4, 1.0, 0.5])
    return opened_NHW * torch.exp(-_coloured(colour, rim_HW)), torch.where(inside_HW > -rim, 0, labels_HW)


def _places(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows and columns from the crop's middle, in lengths of its longer side."""
    side = max(height, width)
    y, x = (torch.arange(length, dtype=torch.float32) - length / 2 for length in (height, width))
    return (y / side)[:, None].expand(height, width), (x / side)[None].expand(height, width)


def _coloured(colour: NDArray[np.float64], amount_HW: Tensor) -> Tensor:
    return torch.from_numpy(colour.astype(np.float32))[:, None, None] * amount_HW
