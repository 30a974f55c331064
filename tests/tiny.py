"""The smallest real segmentation: a U-Net of one level with balanced classes, and an image of six tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from small_bundles import bundle_of, noise

from unet_core.bundle import save_bundle
from unet_core.models.unet import UNet

CLASSES = 3


def save_tiny(folder: Path) -> Path:
    """A bundle whose labels of `noise` hold every class."""
    bundle = bundle_of(UNet(3, CLASSES, first_channels=2, depth=1), CLASSES)
    shape = {"bands": 3, "classes": CLASSES, "first_channels": 2, "depth": 1}
    save_bundle(folder, bundle.card.model_copy(update={"name": "tiny", "parameters": shape}), bundle.module)
    return folder


def write_noise(path: Path, height: int, width: int, seed: int = 0) -> Path:
    tifffile.imwrite(path, noise(height, width, seed), photometric="rgb", tile=(128, 128))
    return path


def write_foreground(path: Path, rows: int, cols: int, *empty: tuple[int, int]) -> Path:
    """A mask image of one pixel per tile, in which some are empty; a tile beside a full one counts as full too."""
    kept = np.full((rows * 4, cols * 4), 255, np.uint8)
    for row, col in empty:
        kept[max(0, 4 * row - 2) : 4 * row + 6, max(0, 4 * col - 2) : 4 * col + 6] = 0
    Image.fromarray(kept).save(path)
    return path
