"""Images of which some pixels hold no data, marked in each of the ways that files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

HERE: dict[str, Any] = {"crs": "EPSG:32632", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_500_000)}


def scene(seed: int = 0, height: int = 98, width: int = 110, dtype: str = "uint8") -> NDArray[Any]:
    """Pixels `(y, x, 3)` without 0 or 255."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 180, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)
    return (1 + coarse[:height, :width] + random.integers(0, 70, (height, width, 3))).astype(dtype)


def collar(height: int = 98, width: int = 110) -> NDArray[np.bool_]:
    """Where a rotated scene holds data: a diamond, with a hole of one pixel."""
    y, x = np.mgrid[:height, :width]
    held = np.abs(y - height / 2) / height + np.abs(x - width / 2) / width < 0.42
    held[50, 60] = False
    return held


def write_map(path: Path, pixels: NDArray[Any], **more: Any) -> Path:
    shape: dict[str, Any] = {"height": pixels.shape[0], "width": pixels.shape[1], "count": pixels.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=pixels.dtype, **shape, **HERE, **more) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return path


def as_nodata(folder: Path, pixels: NDArray[Any], held: NDArray[np.bool_], garbage: int) -> Path:
    return write_map(folder / f"v{garbage}.tif", np.where(held[..., None], pixels, np.uint8(garbage)), nodata=garbage)


def as_mask(folder: Path, pixels: NDArray[Any], held: NDArray[np.bool_], garbage: int) -> Path:
    shown = np.where(held[..., None], pixels, np.uint8(garbage))
    path = folder / f"m{garbage}.tif"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", height=held.shape[0], width=held.shape[1], count=3, **HERE
        ) as file,
    ):
        file.write(np.moveaxis(shown, 2, 0))
        file.write_mask(held)
    return path


def as_alpha(folder: Path, pixels: NDArray[Any], held: NDArray[np.bool_], garbage: int) -> Path:
    shown = np.where(held[..., None], pixels, np.uint8(garbage))
    alpha = (held * np.uint8(255))[..., None]
    tifffile.imwrite(
        folder / f"a{garbage}.tif",
        np.concatenate([shown, alpha], -1),
        photometric="rgb",
        extrasamples=["unassalpha"],
        metadata=None,
    )
    return folder / f"a{garbage}.tif"


def as_png(folder: Path, pixels: NDArray[Any], held: NDArray[np.bool_], garbage: int) -> Path:
    return as_picture(folder / f"p{garbage}.png", pixels, held, garbage)


def as_webp(folder: Path, pixels: NDArray[Any], held: NDArray[np.bool_], garbage: int) -> Path:
    return as_picture(folder / f"w{garbage}.webp", pixels, held, garbage, lossless=True, exact=True)


def as_picture(path: Path, pixels: NDArray[Any], held: NDArray[np.bool_], garbage: int, **more: Any) -> Path:
    shown = np.where(held[..., None], pixels, np.uint8(garbage))
    Image.fromarray(np.concatenate([shown, (held * np.uint8(255))[..., None]], -1)).save(path, **more)
    return path


KINDS = {"nodata": as_nodata, "mask": as_mask, "alpha": as_alpha, "png": as_png, "webp": as_webp}
