"""OME-Zarr 0.5 metadata of the images that a run makes (https://ngff.openmicroscopy.org/0.5/)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiling.geometry import IMAGE_GRID, OutputGrid, PixelSize

_OME_UNITS = {"um": "micrometer", "m": "meter"}


@dataclass(frozen=True, slots=True)
class LabelClass:
    """Name of a label's class, and the colour `#rrggbb` that shows it."""

    name: str
    color: str


def label_metadata(
    levels: int,
    classes: Sequence[LabelClass],
    not_predicted: int,
    pixel_size: PixelSize | None,
    grid: OutputGrid,
    corner_px: tuple[float, float] = (0, 0),
) -> dict[str, Any]:
    """Of a label image.

    Args:
        levels: of its pyramid.
        classes: what labels mean.
        not_predicted: the label of what was not predicted.
        pixel_size: the segmented image's.
        grid: how the labels lie on that.
        corner_px: where the region that was segmented begins, in the segmented image's pixels, y before x.
    """
    colors = [*((label, *_rgb(item.color), 255 if label else 0) for label, item in enumerate(classes))]
    colors.append((not_predicted, 128, 128, 128, 255))
    names = {label: item.name for label, item in enumerate(classes)} | {not_predicted: "not predicted"}
    return {
        "version": "0.5",
        "multiscales": [_multiscale("mask", "yx", levels, pixel_size, grid, "majority of 2 x 2 pixels", corner_px)],
        "image-label": {
            "version": "0.5",
            "colors": [{"label-value": label, "rgba": list(rgba)} for label, *rgba in colors],
            "properties": [{"label-value": label, "name": name} for label, name in names.items()],
        },
    }


def probability_metadata(
    levels: int,
    classes: Sequence[LabelClass],
    pixel_size: PixelSize | None,
    grid: OutputGrid,
    corner_px: tuple[float, float] = (0, 0),
) -> dict[str, Any]:
    """Of an image with one channel per class, 255 being certainty; the rest is as of a label image."""
    return {
        "version": "0.5",
        "multiscales": [
            _multiscale("probabilities", "cyx", levels, pixel_size, grid, "mean of 2 x 2 pixels", corner_px)
        ],
        "omero": {
            "channels": [
                {
                    "label": item.name,
                    "color": item.color.removeprefix("#").upper(),
                    "window": {"min": 0, "max": 255, "start": 0, "end": 255},
                    "active": True,
                }
                for item in classes
            ]
        },
    }


def object_metadata(
    levels: int, pixel_size: PixelSize | None, grid: OutputGrid, corner_px: tuple[float, float] = (0, 0)
) -> dict[str, Any]:
    """Of a label image whose labels number objects; there are too many of them for a name and a colour each."""
    scales = _multiscale("objects", "yx", levels, pixel_size, grid, "first of 2 x 2 pixels", corner_px)
    return {"version": "0.5", "multiscales": [scales], "image-label": {"version": "0.5"}}


def array_metadata() -> dict[str, Any]:
    """Of an image with one level, of which nothing says what a pixel measures."""
    return {"version": "0.5", "multiscales": [_multiscale("image", "cyx", 1, None, IMAGE_GRID, "as it was given")]}


def _multiscale(
    name: str,
    axes: str,
    levels: int,
    pixel_size: PixelSize | None,
    grid: OutputGrid,
    method: str,
    corner_px: tuple[float, float] = (0, 0),
) -> dict[str, Any]:
    unit = {"unit": _OME_UNITS[pixel_size.unit]} if pixel_size and pixel_size.unit in _OME_UNITS else {}
    image_px = pixel_size or PixelSize(1.0, 1.0, "um")  # without a pixel size, lengths are in image pixels
    mask_px = image_px.on(grid)
    lead = [1.0] if "c" in axes else []
    kinds = [
        {"name": axis, "type": "channel"} if axis == "c" else {"name": axis, "type": "space", **unit} for axis in axes
    ]
    return {
        "name": name,
        "axes": kinds,
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*lead, mask_px.y * 2**level, mask_px.x * 2**level]},
                    {
                        "type": "translation",
                        "translation": [
                            *(0.0 for _ in lead),
                            corner_px[0] * image_px.y + _shift(mask_px.y * 2**level, image_px.y),
                            corner_px[1] * image_px.x + _shift(mask_px.x * 2**level, image_px.x),
                        ],
                    },
                ],
            }
            for level in range(levels)
        ],
        "type": method,
    }


def _shift(side: float, image_side: float) -> float:
    """Distance of the first pixel's centre from that of the image's: half of what one is longer than the other."""
    return (side - image_side) / 2


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
