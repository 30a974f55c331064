"""Warping of training crops: turned, mirrored, scaled and bent squares of an example."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unet_core.errors import TrainingError
from unet_core.training.data import Annotated, Example
from unet_core.training.recipe import Variation


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A varied square of one example, or a batch of such squares with one axis more in front.

    `image_NHW`: float, raw units, band before row. `labels_HW`: int64. `weights_HW`: float, how much each pixel
    counts; None where the example doesn't say.
    """

    image_NHW: Tensor  # noqa: N815
    labels_HW: Tensor  # noqa: N815
    weights_HW: Tensor | None  # noqa: N815


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """Square of an image that a crop shows. `y`, `x`: its centre in image pixels; `side`: its length there.

    `scale` is the length of an image pixel in crop pixels. `cos` and `sin` turn it, `mirrored` is 1 or -1.
    `bend_1HW2` moves each pixel of the crop by x and y, in half-sides of the square; None for a straight one.
    """

    tile_px: int
    y: float
    x: float
    scale: float
    cos: float
    sin: float
    mirrored: float
    bend_1HW2: Tensor | None = None  # noqa: N815

    @property
    def side(self) -> float:
        return self.tile_px / self.scale

    @property
    def box(self) -> tuple[int, int, int, int]:
        """`y0, x0, y1, x1`: all image pixels that it takes to draw the crop; it may reach beyond the image."""
        bend = 0.0 if self.bend_1HW2 is None else math.sqrt(2) * float(self.bend_1HW2.abs().max())
        # Smoothing reads two crop pixels beyond, bilinear sampling one image pixel.
        reach = (abs(self.cos) + abs(self.sin) + bend) * self.side / 2 + 2 / min(self.scale, 1) + 2
        return (
            math.floor(self.y - reach),
            math.floor(self.x - reach),
            math.ceil(self.y + reach),
            math.ceil(self.x + reach),
        )

    def grid(self, height: int, width: int, top: int, left: int) -> Tensor:
        """`grid_sample`'s grid over the `height` x `width` pixels of the image that start at `top`, `left`."""
        y, x = self.y - top, self.x - left
        # grid_sample counts in half-lengths from the middle of the image: x to the right, then y downwards.
        theta = torch.tensor(
            [
                [self.mirrored * self.cos * self.side / width, -self.sin * self.side / width, 2 * x / width - 1],
                [self.mirrored * self.sin * self.side / height, self.cos * self.side / height, 2 * y / height - 1],
            ],
            dtype=torch.float32,
        )
        grid_1HW2 = functional.affine_grid(theta[None], [1, 1, self.tile_px, self.tile_px], align_corners=False)
        return grid_1HW2 if self.bend_1HW2 is None else grid_1HW2 + self.bend_1HW2 @ theta[:, :2].T


def warp(
    example: Annotated, tile_px: int, variation: Variation, random: np.random.Generator, *, numbered: bool = False
) -> Crop:
    """A random square of the example, `tile_px` on each side; what lies outside the image is its mirror image.

    Labels and weights move with the image's pixels; where it is `numbered`, the labels are the objects' numbers.
    Only the pixels under the square are asked for.
    """
    square = draw_square(example.shape[0], example.shape[1], tile_px, variation, random)
    pixels, top, left = example.around(*square.box)
    height, width, _ = pixels.shape
    labels_HW = pixels.instances_HW if numbered else pixels.labels_HW
    if labels_HW is None:
        raise TrainingError(f"the labels of {example.name} name classes only, and objects have to be told apart")
    return _sampled(pixels, labels_HW, square, square.grid(height, width, top, left))


def draw_square(height: int, width: int, tile_px: int, variation: Variation, random: np.random.Generator) -> Square:
    """A random square whose middle lies in the image, and as much of it as can be."""
    scale = math.exp(random.uniform(*np.log(variation.scale)))
    cos, sin = turn(random) if variation.rotate else (1.0, 0.0)
    mirrored = -1.0 if variation.rotate and random.random() < 0.5 else 1.0
    y, x = (_centre(length, tile_px / scale, random) for length in (height, width))
    bend_1HW2 = _bend(tile_px, variation.elastic_px, random) if variation.elastic_px else None
    return Square(tile_px, y, x, scale, cos, sin, mirrored, bend_1HW2)


def turn(random: np.random.Generator) -> tuple[float, float]:
    """Cosine and sine of a quarter turn half of the time, so that sharp pixels are seen too, else of any turn."""
    quarter = int(random.integers(4))
    angle = random.uniform(0, 2 * math.pi) if random.random() < 0.5 else quarter * math.pi / 2
    return math.cos(angle), math.sin(angle)


def _sampled(pixels: Example, labels_HW: NDArray[np.integer], square: Square, grid_1HW2: Tensor) -> Crop:
    height, width = labels_HW.shape
    image_1NHW = torch.from_numpy(pixels.image_HWN.astype(np.float32)).permute(2, 0, 1)[None]
    if square.scale < 1:  # bilinear sampling alone would skip pixels and alias
        size = [max(1, round(height * square.scale)), max(1, round(width * square.scale))]
        image_1NHW = functional.interpolate(image_1NHW, size, mode="bilinear", antialias=True)
    labels_11HW = torch.from_numpy(labels_HW.astype(np.float32))[None, None]
    image_1NHW = functional.grid_sample(image_1NHW, grid_1HW2, "bilinear", "reflection", align_corners=False)
    labels_11HW = functional.grid_sample(labels_11HW, grid_1HW2, "nearest", "reflection", align_corners=False)
    weights_HW: Tensor | None = None
    if pixels.weights_HW is not None:
        weights_11HW = torch.from_numpy(pixels.weights_HW)[None, None]
        weights_11HW = functional.grid_sample(weights_11HW, grid_1HW2, "bilinear", "reflection", align_corners=False)
        weights_HW = weights_11HW[0, 0]
    return Crop(image_1NHW[0], labels_11HW[0, 0].round().long(), weights_HW)


def _bend(tile_px: int, deviation_px: float, random: np.random.Generator) -> Tensor:
    """Displacements `(1, tile_px, tile_px, 2)` of a crop's pixels, x before y, in half-lengths of the crop.

    Random vectors on a coarse grid of 3 x 3, Gaussian with a deviation of `deviation_px`, with bicubic
    interpolation between: Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597), section 3.1.
    """
    vectors_1233 = torch.from_numpy(random.normal(0, 2 * deviation_px / tile_px, (1, 2, 3, 3)).astype(np.float32))
    bend_12HW = functional.interpolate(vectors_1233, [tile_px, tile_px], mode="bicubic", align_corners=True)
    return bend_12HW.permute(0, 2, 3, 1)


def _centre(length: int, side: float, random: np.random.Generator) -> float:
    margin = min(side, length) / 2
    return random.uniform(margin, length - margin)
