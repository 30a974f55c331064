"""Mask of a scene cut by the scene's files: a Cloud-optimised GeoTIFF for each, on the part of the grid that it fills.

They are cut from the run's `mask.tif`, so that classes, colours, nodata and place are that file's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray

from tiling.errors import ExportError
from tiling.export.cog import CACHE_MB, PIECE_PX, gdal_errors
from tiling.export.destination import replacing, scratch
from tiling.export.tiff import TILE_PX
from tiling.geometry import Box
from tiling.storage.place import disk_errors

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from tiling.source import ImageSource

_WITHIN_PX = 1e-3
"""By how much of a pixel the corner of a file may lie off the mask's grid and still be a corner of its pixels."""


def expect_parts(source: ImageSource) -> Mapping[str, Box]:
    """The boxes of the scene's files on its grid, by name.

    Raises:
        ExportError: the image is one file, or all of its files fill the same part.
    """
    files = source.files()
    if len(files) < 2:
        what = "all files of this scene fill the same part of it" if files else "this image is one file"
        raise ExportError(f"--split writes a mask for each file of a mosaic, and {what}: leave out --split")
    return files


def write_split(mask: Path, source: ImageSource, folder: Path, threads: int) -> Iterator[Path]:
    """Write a file for each of the scene's, and yield each as it is there.

    Args:
        mask: the run's `mask.tif`.
        source: the scene as it was segmented.
        folder: where they go; it is made where it isn't there.
        threads: of GDAL.

    Raises:
        ExportError: the image has no parts, or says no place.
        OSError: a file can't be written, or isn't what was written when it is read again.
    """
    parts, georeference = expect_parts(source), source.georeference
    if georeference is None or georeference.affine is None:
        raise ExportError(f"{source.path} says no place on the earth by which a mask could be split: leave out --split")
    with gdal_errors(), rasterio.Env(GDAL_CACHEMAX=CACHE_MB), rasterio.open(mask) as dataset:
        to_mask = np.linalg.inv(_matrix(dataset.transform)) @ _matrix(georeference.affine)
        for name, box in parts.items():
            cut = _box_in_mask(box, to_mask).intersect(Box(0, 0, dataset.height, dataset.width))
            if cut.is_empty:
                continue  # outside of what was segmented
            path = folder / f"{name}.tif"
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                _write_part(dataset, cut, partial, threads)
            yield path


def _matrix(affine: Sequence[float]) -> NDArray[np.float64]:
    """Pixels to places on the map, `(3, 3)`."""
    return np.array([*affine[:6], 0, 0, 1], np.float64).reshape(3, 3)


def _box_in_mask(box: Box, to_mask: NDArray[np.float64]) -> Box:
    """All pixels of the mask that a box of the scene touches."""
    (x0, x1), (y0, y1), _ = to_mask @ np.array([[box.x0, box.x1], [box.y0, box.y1], [1, 1]], np.float64)
    return Box(floor(y0 + _WITHIN_PX), floor(x0 + _WITHIN_PX), ceil(y1 - _WITHIN_PX), ceil(x1 - _WITHIN_PX))


def _write_part(dataset: DatasetReader, cut: Box, path: Path, threads: int) -> None:
    plain = scratch(path)
    looks: dict[str, Any] = {
        "driver": "GTiff",
        "width": cut.width,
        "height": cut.height,
        "count": 1,
        "dtype": "uint8",
        "crs": dataset.crs,
        "transform": dataset.window_transform(_window(cut)),
        "nodata": dataset.nodata,
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "compress": "DEFLATE",
        "photometric": "palette",
    }
    try:
        with rasterio.open(plain, "w", **looks) as part:
            part.write_colormap(1, dataset.colormap(1))
            part.update_tags(**dataset.tags())
            for piece in _pieces(cut):
                part.write(_read(dataset, piece.translate(cut.y0, cut.x0)), 1, window=_window(piece))
        rasterio.shutil.copy(
            plain,
            path,
            driver="COG",
            compress="DEFLATE",
            blocksize=TILE_PX,
            overview_resampling="MODE",
            num_threads=threads,
        )
        with rasterio.open(path) as part:
            for piece in _pieces(cut):
                if not np.array_equal(_read(part, piece), _read(dataset, piece.translate(cut.y0, cut.x0))):
                    raise OSError(f"{path.name} isn't as it was written: the disk may not have taken it whole")
    finally:
        for left in plain.parent.glob(f"{plain.name}*"):
            left.unlink(missing_ok=True)


def _pieces(cut: Box) -> Iterator[Box]:
    """Boxes of a part, from its own corner, that are read at once."""
    for top, left in product(range(0, cut.height, PIECE_PX), range(0, cut.width, PIECE_PX)):
        yield Box(top, left, min(top + PIECE_PX, cut.height), min(left + PIECE_PX, cut.width))


def _read(dataset: DatasetReader, box: Box) -> NDArray[np.uint8]:
    return dataset.read(1, window=_window(box))


def _window(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.y0, box.y1), (box.x0, box.x1)
