"""Scenes of several files, cut from one picture or drawn over one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

CRS, WHERE = "EPSG:32632", Affine(10, 0, 500_000, 0, -10, 5_500_000)


def scene_pixels(height: int = 130, width: int = 155, bands: int = 3, dtype: str = "uint16") -> NDArray[Any]:
    """Smooth pixels `(y, x, band)` from 100 on."""
    y, x = np.mgrid[:height, :width]
    layers = [np.sin(y / (7 + band)) + np.cos(x / (9 - band)) for band in range(bands)]
    return (1100 + 450 * np.stack(layers, axis=-1)).astype(dtype)


def write_raster(
    path: Path, pixels: NDArray[Any], *, transform: Affine | None = WHERE, crs: str | None = CRS, **more: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = pixels.shape
    place: dict[str, Any] = {} if transform is None else {"transform": transform, "crs": crs}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=pixels.dtype, **place, **more
    ) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return path


def cut(folder: Path, pixels: NDArray[Any], rows: int = 3, cols: int = 3, **more: Any) -> list[Path]:
    """One picture as files of unequal sizes, each in its own place."""
    ys = np.linspace(0, pixels.shape[0], rows + 1).astype(int)
    xs = np.linspace(0, pixels.shape[1], cols + 1).astype(int)
    return [
        write_raster(
            folder / f"part_{row}_{col}.tif",
            pixels[ys[row] : ys[row + 1], xs[col] : xs[col + 1]],
            transform=WHERE @ Affine.translation(xs[col], ys[row]),
            **more,
        )
        for row in range(rows)
        for col in range(cols)
    ]
