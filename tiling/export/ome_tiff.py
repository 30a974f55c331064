"""`mask.ome.tif`: a pyramid in one file for QuPath, Bio-Formats, OMERO and napari.

OME-TIFF (https://ome-model.readthedocs.io/en/stable/ome-tiff/): tiles, lossless compression, the coarser levels as
SubIFDs of the full image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import tifffile
from numpy.typing import NDArray

from tiling.export.finished import Finished
from tiling.export.tiff import TILE_PX, is_big, tiles_of
from tiling.runs.mask import NOT_PREDICTED
from tiling.runs.pyramid import Pyramid
from tiling.runs.run import named

_UNITS = {"um": "µm", "m": "m"}


def write_ome_tiff(finished: Finished, paths: Sequence[Path]) -> None:
    """The labels, the majority of 2 x 2 pixels in each coarser level; what they mean stands in its annotations."""
    names = {"0": finished.run.classes[0].name} | {str(label): item.name for label, item in finished.classes.items()}
    _write(finished, finished.mask.pyramid, paths[0], {"Channel": {"Name": "label"}, "MapAnnotation": names}, "mask")


def write_probabilities_ome_tiff(finished: Finished, paths: Sequence[Path]) -> None:
    """One channel per class, 255 being certainty."""
    assert finished.probabilities is not None
    names = [item.name for item in named(finished.run.card.probabilities)]
    _write(finished, finished.probabilities.pyramid, paths[0], {"Channel": {"Name": names}}, "probabilities")


def _write(finished: Finished, pyramid: Pyramid, path: Path, more: dict[str, Any], name: str) -> None:
    size = finished.placement.pixel_size
    metadata: dict[str, Any] = {
        "axes": "YX" if pyramid.levels[0].ndim == 2 else "CYX",
        "Name": name,
        "UUID": str(UUID(bytes=bytes.fromhex(finished.digest))),
        **more,
    }
    if size is not None and size.unit in _UNITS:
        unit = _UNITS[size.unit]
        metadata |= {"PhysicalSizeY": size.y, "PhysicalSizeYUnit": unit}
        metadata |= {"PhysicalSizeX": size.x, "PhysicalSizeXUnit": unit}
    metadata |= _position(finished, pyramid.levels[0].shape[0] if pyramid.levels[0].ndim == 3 else 1)
    with tifffile.TiffWriter(path, bigtiff=is_big(pyramid), ome=True) as tiff:
        for level, array in enumerate(pyramid.levels):
            tiff.write(
                _planes(pyramid, level),
                shape=array.shape,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="minisblack",
                compression="zlib",
                maxworkers=finished.threads,
                metadata=metadata if level == 0 else None,
                subifds=len(pyramid.levels) - 1 if level == 0 else None,
                subfiletype=1 if level else 0,
            )


def _position(finished: Finished, planes: int) -> dict[str, Any]:
    """Position of the planes in the image's own coordinates, as lengths or in the mask's own pixels: where a region
    does, from where the image lies itself.
    """
    placement, scale = finished.placement, finished.run.plan.grid.scale
    a, _, c, _, e, f = placement.to_image
    origin_y, origin_x = finished.run.card.image.origin_px or (0.0, 0.0)
    top, left = f / e + origin_y * float(scale[0]), c / a + origin_x * float(scale[1])
    if (top, left) == (0, 0):
        return {}
    size = placement.pixel_size
    y, x, unit = (size.y, size.x, _UNITS[size.unit]) if size and size.unit in _UNITS else (1.0, 1.0, "pixel")
    return {
        "Plane": {
            "PositionY": [top * y] * planes,
            "PositionYUnit": [unit] * planes,
            "PositionX": [left * x] * planes,
            "PositionXUnit": [unit] * planes,
        }
    }


def _planes(pyramid: Pyramid, level: int) -> Iterator[NDArray[np.uint8]]:
    """All tiles of a level, channel by channel."""
    array = pyramid.levels[level]
    if array.ndim == 2:
        return tiles_of(pyramid, level, fill=NOT_PREDICTED)
    return (tile for channel in range(array.shape[0]) for tile in tiles_of(pyramid, level, channel))
