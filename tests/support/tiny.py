"""The smallest real segmentation: a U-Net of one level with balanced classes, and an image of six tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from PIL import Image
from rasterio.transform import Affine
from small_bundles import bundle_of, noise

from unet_core.bundles.bundle import save_bundle
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


def write_noise_map(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """The same with a place on the earth, a metre per pixel, so that it can be exported to every format."""
    facts: dict[str, Any] = {"crs": "EPSG:32632", "transform": Affine(1, 0, 500_000, 0, -1, 5_500_000)}
    shape: dict[str, Any] = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, blockxsize=128, blockysize=128, **shape, **facts) as file:
        file.write(np.moveaxis(noise(height, width, seed), 2, 0))
    return path


def write_foreground(path: Path, rows: int, cols: int, *empty: tuple[int, int]) -> Path:
    """A mask image of one pixel per tile, in which some are empty; a tile beside a full one counts as full too."""
    kept = np.full((rows * 4, cols * 4), 255, np.uint8)
    for row, col in empty:
        kept[max(0, 4 * row - 2) : 4 * row + 6, max(0, 4 * col - 2) : 4 * col + 6] = 0
    Image.fromarray(kept).save(path)
    return path
