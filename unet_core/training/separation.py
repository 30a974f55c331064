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


def grown(labels_HW: NDArray[np.integer], reach_px: int, least_px: int = 1) -> NDArray[np.int32]:
    """The objects of a map of interiors and borders, numbered from 1 without gaps; 0 is the ground.

    Connected interiors of `least_px` or more are the seeds. Each takes, `reach_px` times, the foreground pixels
    next to it by an edge; where two meet at once, the one with the greater number wins. Foreground that no seed is
    connected to is an object of its own where it has as many pixels; what else is left is ground.
    """
    foreground_HW = labels_HW > 0
    seeds_HW = _without_specks(components(labels_HW, INTERIOR), least_px)
    objects_HW = seeds_HW
    cross = ndimage.generate_binary_structure(2, 1)
    for _ in range(reach_px):
        spread_HW = ndimage.grey_dilation(objects_HW, footprint=cross)
        taken_HW = np.where((objects_HW == 0) & foreground_HW, spread_HW, objects_HW)
        if np.array_equal(taken_HW, objects_HW):
            break
        objects_HW = taken_HW
    whole_HW = components(foreground_HW.astype(np.uint8), 1)
    seeded = np.unique(whole_HW[seeds_HW > 0])
    alone_HW = _without_specks(np.where(np.isin(whole_HW, seeded), 0, whole_HW), least_px)
    numbers_HW = np.where(alone_HW > 0, alone_HW + objects_HW.max(initial=0), objects_HW)
    present = np.bincount(numbers_HW.ravel()) > 0
    present[0] = False  # the ground stays 0 where there is none, too
    return np.cumsum(present).astype(np.int32)[numbers_HW] * (numbers_HW > 0)


def _greatest(values_11HW: Tensor, reach_px: int) -> Tensor:
    return functional.max_pool2d(values_11HW, 2 * reach_px + 1, stride=1, padding=reach_px)


def _without_specks(numbered_HW: NDArray[np.int32], least_px: int) -> NDArray[np.int32]:
    sizes = np.bincount(numbered_HW.ravel())
    return np.where(sizes[numbered_HW] >= least_px, numbered_HW, 0).astype(np.int32)
