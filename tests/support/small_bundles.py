"""Small networks as bundles, with weights that make every layer count, and their whole-image labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from tiled import unlike_fresh
from torch import Tensor, nn

from tiling.geometry import Halo
from tiling.plan import TilePlan
from unet_core.bounds import Edges, Footprint
from unet_core.bundles.bundle import Bundle, ClassInfo, Decision, ModelCard, Normalization
from unet_core.inference.decision import decide
from unet_core.inference.predictor import OutputRegion, Predictor
from unet_core.inference.tta import SYMMETRIES, Tta
from unet_core.models.unet import UNet

Tile = NDArray[np.generic]
ARGMAX = Decision("argmax")


class Lopsided(nn.Module):
    """Sees 3 px further up than down and 6 px further left than right."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.shift = nn.ZeroPad2d((4, 0, 3, 1))
        self.first = nn.Conv2d(3, 4, 5)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.deep = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.relu(self.norm(self.first(self.shift(x_NCHW))))
        deep = self.up(self.relu(self.deep(self.pool(x_NCHW))))
        return self.head(torch.cat([x_NCHW, deep], 1))


class Finer(nn.Module):
    """Three output pixels per input pixel."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 9 * classes, 3, padding=1), nn.Conv2d(classes, classes, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(nn.functional.pixel_shuffle(self.conv(x_NCHW), 3))


class Coarser(nn.Module):
    """One output pixel per 2 × 2 input pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 4, stride=2, padding=1), nn.Conv2d(4, classes, 3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x_NCHW)))


class Unpadded(nn.Module):
    """Loses 4 px on each side, as the original U-Net does on a larger scale."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 3)
        self.head = nn.Conv2d(4, classes, 3)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x_NCHW)))))


def bundle_of(module: nn.Module, classes: int = 3, decision: Decision = ARGMAX) -> Bundle:
    """A bundle around any network of three bands."""
    card = ModelCard(
        name="small",
        description="",
        architecture="unet",
        parameters={"bands": 3},
        bands=("red", "green", "blue"),
        dtype="uint8",
        classes=tuple(ClassInfo(f"class {label}", "#000000") for label in range(classes)),
        decision=decision,
        normalization=Normalization((100.0, 120.0, 140.0), (60.0, 50.0, 70.0)),
        license="none",
    )
    bundle = Bundle(card, unlike_fresh(module), "digest")
    if "head.bias" in dict(module.named_parameters()):
        # Classes of equal mean and spread: a mask of one class would pass every comparison.
        logits = whole_logits(bundle, noise(64, 64))
        centre, spread = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
        with torch.no_grad():
            module.get_parameter("head.bias").sub_(centre).div_(spread)
            module.get_parameter("head.weight").div_(spread.view(-1, 1, 1, 1))
    return bundle


def small_unet(depth: int = 2, classes: int = 3, decision: Decision = ARGMAX) -> Bundle:
    outputs = classes if decision.rule == "argmax" else classes - 1
    return bundle_of(UNet(3, outputs, first_channels=4, depth=depth), classes, decision)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels with structure at several scales."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)
    return (coarse[:height, :width] + generator.integers(0, 56, (height, width, 3))).astype(np.uint8)


def normalised(bundle: Bundle, pixels_HWC: Tile) -> Tensor:
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1) for v in (bundle.card.normalization.mean, bundle.card.normalization.std)
    )
    return (torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)[None].float() - mean) / std


def whole_logits(bundle: Bundle, pixels_HWC: Tile, tta: Tta = "none") -> Tensor:
    """Mean logits `(1, C, H, W)` of plain passes over the whole image, mirrored and turned as a whole."""
    symmetries = SYMMETRIES[tta]
    passes: list[Tensor] = []
    with torch.inference_mode():
        for symmetry in symmetries:
            seen = pixels_HWC[:: -1 if symmetry.flip_y else 1, :: -1 if symmetry.flip_x else 1]
            seen = seen.transpose(1, 0, 2) if symmetry.transpose else seen
            logits = bundle.module(normalised(bundle, seen))
            logits = logits.transpose(2, 3) if symmetry.transpose else logits
            turned = [axis for axis, is_flipped in ((2, symmetry.flip_y), (3, symmetry.flip_x)) if is_flipped]
            passes.append(logits.flip(turned))
    return torch.stack(passes).mean(0)


def whole_labels(bundle: Bundle, pixels_HWC: Tile, tta: Tta = "none") -> NDArray[np.uint8]:
    """Labels `(H, W)` of an image whose sides are multiples of the stride."""
    return decide(whole_logits(bundle, pixels_HWC, tta), bundle.card.decision)[0].numpy()


def tiles_of(
    pixels_HWC: Tile, core_px: int, found: Footprint
) -> Iterator[tuple[Tile, OutputRegion, tuple[slice, slice]]]:
    """Every tile of the image: its read, its region, and where its labels belong."""
    halo = Halo(found.halo.top, found.halo.bottom, found.halo.left, found.halo.right)
    plan = TilePlan((pixels_HWC.shape[0], pixels_HWC.shape[1]), core_px, found.stride, halo)
    for tile in plan.tiles():
        sides, need = plan.edges(tile), tile.valid.relative_to(tile.read)
        edges = Edges(sides.top, sides.bottom, sides.left, sides.right)
        yield pixels_HWC[tile.read.slices], OutputRegion((need.y0, need.x0, need.y1, need.x1), edges), tile.valid.slices


def stitched(predictor: Predictor, pixels_HWC: Tile, core_px: int, found: Footprint) -> NDArray[np.uint8]:
    """Labels `(H, W)`, tile by tile."""
    labels = np.full(pixels_HWC.shape[:2], 255, np.uint8)
    for tile, region, place in tiles_of(pixels_HWC, core_px, found):
        labels[place] = predictor.predict(tile, region)
    return labels
