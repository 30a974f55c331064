"""Varied crops of training examples: every random choice follows from the generator handed in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unet_core.errors import TrainingError
from unet_core.training.clutter import clutter
from unet_core.training.data import Annotated
from unet_core.training.jpeg import jpeg
from unet_core.training.recipe import Separation, TrainingConfig, Variation
from unet_core.training.separation import separated
from unet_core.training.warping import Crop, turn, warp

__all__ = ["Crop", "CropSampler", "draw_crop"]

# Optical densities of haematoxylin, eosin and DAB in red, green, blue: Ruifrok and Johnston 2001.
_STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS_INVERSE = torch.linalg.inv(_STAINS)


class CropSampler:
    """Batches of varied crops, each a function of the seed, the step's number and its place in the batch alone.

    Groups are drawn by their `share`, examples evenly within a group. Raises TrainingError for an example
    whose group the configuration doesn't name.
    """

    def __init__(self, config: TrainingConfig, examples: Sequence[Annotated], full_scale: float) -> None:
        self.config, self.full_scale = config, full_scale
        self.members: dict[str, list[Annotated]] = {}
        for example in examples:
            self.members.setdefault(example.group, []).append(example)
        unknown = self.members.keys() - config.groups.keys()
        if unknown:
            raise TrainingError(
                f"examples are of the groups {sorted(unknown)}, the recipe varies {sorted(config.groups)}: "
                "add a [training.groups] entry for each"
            )
        self.groups = sorted(self.members)
        shares = np.array([config.groups[group].share for group in self.groups])
        self.chances = shares / shares.sum()

    def batch(self, step: int, start: int = 0, stop: int | None = None) -> Crop:
        """The crops `start` to `stop` (default: all) of one step's batch, stacked.

        Crops without weights among some with weights count 1 everywhere.
        """
        groups = np.random.default_rng((self.config.seed, step)).choice(
            len(self.groups), self.config.batch, p=self.chances
        )
        crops = [self._crop(self.groups[int(groups[i])], step, i) for i in range(self.config.batch)[start:stop]]
        weights = [crop.weights_HW for crop in crops]
        return Crop(
            torch.stack([crop.image_NHW for crop in crops]),
            torch.stack([crop.labels_HW for crop in crops]),
            None
            if all(weight is None for weight in weights)
            else torch.stack(
                [torch.ones(crop.labels_HW.shape) if (w := crop.weights_HW) is None else w for crop in crops]
            ),
        )

    def _crop(self, group: str, step: int, index: int) -> Crop:
        random = np.random.default_rng((self.config.seed, step, index))
        example = self.members[group][int(random.integers(len(self.members[group])))]
        variation = self.config.groups[group]
        return draw_crop(example, self.config.tile_px, self.full_scale, variation, random, self.config.separate)


def draw_crop(
    example: Annotated,
    tile_px: int,
    full_scale: float,
    variation: Variation,
    random: np.random.Generator,
    separation: Separation | None = None,
) -> Crop:
    """A varied square of one example, `tile_px` on each side.

    Turned, mirrored, scaled and bent about a random centre; what lies outside the image is its mirror image.
    Brightness, stain, blur and noise vary the image only; values stay within 0..`full_scale`; a share of the crops,
    `plain`, is turned and mirrored alone. With a `separation`
    the labels are those of interiors and borders, as wide as it says after all scaling.
    """
    if variation.plain and random.random() < variation.plain:
        variation = Variation(rotate=variation.rotate)
    crop = warp(example, tile_px, variation, random, numbered=separation is not None)
    image_NHW, labels_HW = crop.image_NHW / full_scale, crop.labels_HW
    if image_NHW.shape[0] == 3 and (variation.stain or variation.hue or variation.counterstain or variation.wash):
        image_NHW = _restain(image_NHW, labels_HW, variation, random)
    if image_NHW.shape[0] == 3 and variation.clutter and random.random() < variation.clutter:
        image_NHW, labels_HW = clutter(image_NHW.clamp(0, 1), labels_HW, random)
    image_NHW = _rescale(image_NHW, variation, random)
    image_NHW = _recolour(image_NHW, variation, random)
    image_NHW = _degrade(image_NHW, variation, random)
    if separation is not None:
        labels_HW = separated(labels_HW, separation.outline_px, separation.touching_px)
    return Crop(image_NHW.clamp(0, 1) * full_scale, labels_HW, crop.weights_HW)


def _restain(image_NHW: Tensor, labels_HW: Tensor, variation: Variation, random: np.random.Generator) -> Tensor:
    """Other amounts of stain in an image within 0..1: stains add up as optical densities (Beer and Lambert)."""
    density_NHW = -image_NHW.clamp(1 / 255, 1).log()
    if variation.counterstain and random.random() < variation.counterstain:
        density_NHW = density_NHW + _ground(labels_HW, random)
    if variation.wash and random.random() < variation.wash:
        # Packed cells stand in violet, so haematoxylin too is a colour of grounds.
        density_NHW = density_NHW + random.uniform(0, 0.6) * _ground_colour(random, redness=0.6)
    factors = _about_one(variation.stain, random)
    mixing = torch.diag(_about_one(variation.hue, random)) @ _STAINS.T @ torch.diag(factors) @ _STAINS_INVERSE.T
    return (-(mixing @ density_NHW.flatten(1))).exp().reshape(image_NHW.shape)


def _about_one(width: float, random: np.random.Generator) -> Tensor:
    return torch.tensor(random.uniform(1 - width, 1 + width, 3), dtype=torch.float32)


def _ground(labels_HW: Tensor, random: np.random.Generator) -> Tensor:
    """Optical density of invented fibres or grounds, weak inside the foreground, in a colour from eosin to DAB.

    Tissue shows far more kinds of ground than the annotated images do, and none of it is foreground.
    """
    cos, sin = turn(random)
    across, along = random.uniform(0.08, 0.5), random.uniform(0.02, 0.3)
    theta = torch.tensor([[cos * across, -sin * across, 0], [sin * along, cos * along, 0]], dtype=torch.float32)
    grid_1HW2 = functional.affine_grid(theta[None], [1, 1, *labels_HW.shape], align_corners=False)
    grain_11HW = torch.from_numpy(random.standard_normal((1, 1, 64, 64), dtype=np.float32))
    texture_HW = functional.grid_sample(grain_11HW, grid_1HW2, "bicubic", "reflection", align_corners=False)[0, 0]
    steepness, threshold = random.uniform(1, 8), random.uniform(-1.5, 1)
    amount_HW = random.uniform(0.1, 1.2) * torch.sigmoid(steepness * (texture_HW - threshold))
    amount_HW = torch.where(labels_HW > 0, random.uniform(0, 0.5) * amount_HW, amount_HW)
    return _ground_colour(random) * amount_HW


def _ground_colour(random: np.random.Generator, redness: float = 0.25) -> Tensor:
    """A colour in eosin to DAB; `redness` is the greatest density in red, which haematoxylin has most of."""
    low, high = np.array([0.02, 0.6, 0.15]), np.array([redness, 1.0, 0.75])
    return torch.tensor(random.uniform(low, high), dtype=torch.float32)[:, None, None]


def _rescale(image_NHW: Tensor, variation: Variation, random: np.random.Generator) -> Tensor:
    """Gamma, gain and offset of an image within 0..1."""
    gamma, gain = (math.exp(random.uniform(-width, width)) for width in (variation.gamma, variation.gain))
    offset = random.uniform(-variation.offset, variation.offset)
    return image_NHW.clamp(0, 1) ** gamma * gain + offset


def _recolour(image_NHW: Tensor, variation: Variation, random: np.random.Generator) -> Tensor:
    """Each band's own brightness, colours turned about grey, no colours at all, and negatives."""
    bands = image_NHW.shape[0]
    if variation.band_gain or variation.band_gamma:
        gammas, gains = (
            torch.from_numpy(np.exp(random.uniform(-width, width, (bands, 1, 1))).astype(np.float32))
            for width in (variation.band_gamma, variation.band_gain)
        )
        image_NHW = image_NHW.clamp(0, 1) ** gammas * gains
    if bands == 3 and variation.turn_hue:
        turned = _turn_about_grey(math.radians(random.uniform(-variation.turn_hue, variation.turn_hue)))
        image_NHW = (turned @ image_NHW.flatten(1)).reshape(image_NHW.shape)
    if variation.grey and random.random() < variation.grey:
        image_NHW = image_NHW.mean(dim=0, keepdim=True).expand_as(image_NHW)
    if variation.invert and random.random() < variation.invert:
        image_NHW = 1 - image_NHW.clamp(0, 1)
    return image_NHW


def _turn_about_grey(angle: float) -> Tensor:
    """The matrix that turns red, green and blue about their diagonal (Rodrigues)."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    even = torch.full((3, 3), (1 - cos) / 3)
    return even + torch.tensor([[cos, -sin, sin], [sin, cos, -sin], [-sin, sin, cos]])


def _degrade(image_NHW: Tensor, variation: Variation, random: np.random.Generator) -> Tensor:
    """Gaussian blur, sharpening (an unsharp mask, as scanners apply it), noise and JPEG, each for a third of crops."""
    if variation.blur_px and random.random() < 1 / 3:
        image_NHW = _blurred(image_NHW, random.uniform(0.3, max(0.3, variation.blur_px)))
    if variation.sharpen and random.random() < 1 / 3:
        edges_NHW = image_NHW - _blurred(image_NHW, random.uniform(0.7, 1.5))
        image_NHW = image_NHW + random.uniform(0, variation.sharpen) * edges_NHW
    if variation.noise and random.random() < 1 / 3:
        strength = np.float32(random.uniform(0, variation.noise))
        grain = random.standard_normal(tuple(image_NHW.shape), dtype=np.float32) * strength
        image_NHW = image_NHW + torch.from_numpy(grain)
    if variation.jpeg is not None and random.random() < 1 / 3:
        image_NHW = jpeg(image_NHW.clamp(0, 1), int(random.integers(variation.jpeg, 101)))
    return image_NHW


def _blurred(image_NHW: Tensor, sigma_px: float) -> Tensor:
    radius = math.ceil(3 * sigma_px)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    padded_N1HW = functional.pad(image_NHW[:, None], [radius] * 4, mode="replicate")
    rows_N1HW = functional.conv2d(padded_N1HW, kernel)
    return functional.conv2d(rows_N1HW, kernel.transpose(2, 3))[:, 0]
