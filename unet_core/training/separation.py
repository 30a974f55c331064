"""Objects that touch, told apart by a class of their borders: interiors are the seeds that grow into the foreground.

After Caicedo et al. 2019 (Cytometry A 95:952), who train a network on interiors and borders of nuclei.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from unet_core.training.instances import components

INTERIOR, BORDER = 1, 2


def separated(instances_HW: Tensor, outline_px: int, touching_px: int) -> Tensor:
    """Labels `(H, W)` int64 of objects numbered from 1: 0 the ground, 1 their interiors, 2 their borders.

    Border is what lies within `outline_px` of a pixel outside of its object, or within `touching_px` of another
    object, by rows and columns (a square). The edge of the image is no outside.
    """
    ids_11HW = instances_HW[None, None].float()  # whole numbers are exact up to 2²⁴
    is_border = torch.zeros_like(ids_11HW, dtype=torch.bool)
    if outline_px:
        greatest, least = _greatest(ids_11HW, outline_px), -_greatest(-ids_11HW, outline_px)
        is_border |= (greatest != ids_11HW) | (least != ids_11HW)
    if touching_px:
        # The ground is no other object: it never wins the search for the least number.
        objects_11HW = torch.where(ids_11HW > 0, ids_11HW, torch.inf)
        greatest, least = _greatest(ids_11HW, touching_px), -_greatest(-objects_11HW, touching_px)
        is_border |= (greatest != ids_11HW) | (least != ids_11HW)
    labels_11HW = torch.where(is_border, BORDER, INTERIOR) * (ids_11HW > 0)
    return labels_11HW[0, 0].long()


def grown(
    labels_HW: NDArray[np.integer], reach_px: int, least_px: int = 1, *, fills_holes: bool = False
) -> NDArray[np.int32]:
    """The objects of a map of interiors and borders, numbered from 1 without gaps; 0 is the ground.

    Connected interiors are the seeds. Each takes, `reach_px` times, the border pixels next to it by an edge; where
    several meet at once, the one whose first pixel comes first by rows wins. Border that no seed reaches is ground,
    and so are objects of fewer than `least_px` pixels. With `fills_holes` ground that one object encloses is its own.
    """
    is_border_HW = labels_HW == BORDER
    objects_HW = components(labels_HW, INTERIOR)  # numbered by their first pixels
    cross = ndimage.generate_binary_structure(2, 1)
    none = np.iinfo(np.int32).max
    for _ in range(reach_px):
        nearest_HW = ndimage.grey_erosion(np.where(objects_HW == 0, none, objects_HW), footprint=cross)
        taken_HW = np.where((objects_HW == 0) & is_border_HW & (nearest_HW != none), nearest_HW, objects_HW)
        if np.array_equal(taken_HW, objects_HW):
            break
        objects_HW = taken_HW
    if fills_holes:
        objects_HW = _filled(objects_HW)
    sizes = np.bincount(objects_HW.ravel())
    kept = sizes >= least_px
    kept[0] = False
    return (np.cumsum(kept) * kept).astype(np.int32)[objects_HW]


def _filled(objects_HW: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same with the ground that only one object touches, and no edge of the image, given to that object."""
    ground_HW = components((objects_HW == 0).astype(np.uint8), 1)
    filled_HW = objects_HW.copy()
    cross = ndimage.generate_binary_structure(2, 1)
    for number, box in enumerate(ndimage.find_objects(ground_HW), start=1):
        if any(side.start == 0 or side.stop == full for side, full in zip(box, objects_HW.shape, strict=True)):
            continue
        around = tuple(slice(side.start - 1, side.stop + 1) for side in box)
        hole_HW = ground_HW[around] == number
        touching = np.unique(objects_HW[around][ndimage.binary_dilation(hole_HW, cross) & ~hole_HW])
        if len(touching) == 1:
            filled_HW[around][hole_HW] = touching[0]
    return filled_HW


def _greatest(values_11HW: Tensor, reach_px: int) -> Tensor:
    return functional.max_pool2d(values_11HW, 2 * reach_px + 1, stride=1, padding=reach_px)
