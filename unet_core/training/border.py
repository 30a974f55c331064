"""The border-weight map: Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597), equation 2."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# What lies so far off that it would add less than this is left out.
_NEGLIGIBLE = 1e-6


def border_weights(
    instances_HW: NDArray[np.integer], w0: float = 10.0, sigma: float = 5.0, *, balance: bool = False
) -> NDArray[np.float32]:
    """w = w_c + w0 · exp(-(d1 + d2)² / 2σ²): pixels in narrow gaps between objects count most.

    d1 and d2 are the distances in px to the border of the nearest and the second nearest object; an object's
    border are its pixels with one of the four neighbours outside of it. w_c is 1, or, with `balance`, for
    objects and ground N / 2N_c, so that both count alike in sum and 1 in the mean.

    Args:
        instances_HW: objects numbered from 1, 0 is the ground.
        w0: how much the narrowest gap counts.
        sigma: how wide a gap still counts, in px.
        balance: whether the classes' frequencies are balanced.
    """
    reach = math.ceil(sigma * math.sqrt(2 * math.log(max(w0 / _NEGLIGIBLE, 1)))) + 1
    nearest_HW = np.full(instances_HW.shape, np.inf)
    second_HW = nearest_HW.copy()
    _, numbers_HW = np.unique(instances_HW, return_inverse=True)
    numbers_HW = numbers_HW.reshape(instances_HW.shape) + (0 if (instances_HW == 0).any() else 1)
    for number, found in enumerate(ndimage.find_objects(numbers_HW), start=1):
        box = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in found)
        border = _border(numbers_HW[box] == number)
        if not border.any():  # one object that fills the image has none
            continue
        distance = np.asarray(ndimage.distance_transform_edt(~border))
        nearest, second = nearest_HW[box], second_HW[box]
        second_HW[box] = np.minimum(second, np.maximum(nearest, distance))
        nearest_HW[box] = np.minimum(nearest, distance)
    weights_HW = w0 * np.exp(-((nearest_HW + second_HW) ** 2) / (2 * sigma**2)) + _class_weights(instances_HW, balance)
    return weights_HW.astype(np.float32)


def _border(object_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of an object that touch what is outside of it; the image's edge is no outside."""
    return object_HW & ~ndimage.binary_erosion(object_HW, border_value=1)


def _class_weights(instances_HW: NDArray[np.integer], balance: bool) -> NDArray[np.float64]:
    is_object_HW = instances_HW > 0
    share = float(is_object_HW.mean())
    if not balance or share in {0.0, 1.0}:
        return np.ones(instances_HW.shape)
    return np.where(is_object_HW, 0.5 / share, 0.5 / (1 - share))
