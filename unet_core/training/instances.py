"""Agreement of single objects, as the Data Science Bowl 2018 counts it (Caicedo 2019, Nature Methods 16:1247)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""The intersections over union above which two objects count as one: 0.5 to 0.95."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Objects found, invented and missed, per threshold."""

    found: NDArray[np.int64]
    invented: NDArray[np.int64]
    missed: NDArray[np.int64]

    def __add__(self, other: Matches) -> Matches:
        return Matches(self.found + other.found, self.invented + other.invented, self.missed + other.missed)

    def precision(self) -> NDArray[np.float64]:
        """found / (found + invented + missed) per threshold; NaN where there is no object at all."""
        total = self.found + self.invented + self.missed
        return np.divide(self.found, total, out=np.full(total.shape, np.nan), where=total > 0)


def components(labels_HW: NDArray[np.integer], label: int) -> NDArray[np.int32]:
    """The connected components of one label, numbered from 1; pixels touch along an edge."""
    numbered_HW = np.zeros(labels_HW.shape, np.int32)
    ndimage.label(labels_HW == label, output=numbered_HW)
    return numbered_HW


def match_objects(
    truth_HW: NDArray[np.integer], predicted_HW: NDArray[np.integer], thresholds: tuple[float, ...] = THRESHOLDS
) -> Matches:
    """Count the objects of two maps (0 is the ground) that overlap by more than each threshold.

    Above one half no object can have two partners, so nothing needs to be assigned. Raises ValueError for
    thresholds below one half and maps of different shapes.
    """
    if min(thresholds) < 0.5:
        raise ValueError(f"thresholds must be at least 0.5, got {min(thresholds)}: matches would not be unique")
    if truth_HW.shape != predicted_HW.shape:
        raise ValueError(f"truth is {truth_HW.shape} and prediction {predicted_HW.shape}: they must have one shape")
    true_sizes, true_HW = _numbered(truth_HW)
    sizes, numbers_HW = _numbered(predicted_HW)
    pairs, overlaps = np.unique(true_HW * len(sizes) + numbers_HW, return_counts=True)
    true, predicted = np.divmod(pairs, len(sizes))
    both = (true > 0) & (predicted > 0)
    overlaps, true, predicted = overlaps[both], true[both], predicted[both]
    iou = overlaps / (true_sizes[true] + sizes[predicted] - overlaps)
    found = (iou[None] > np.array(thresholds)[:, None]).sum(axis=1)
    return Matches(found, len(sizes) - 1 - found, len(true_sizes) - 1 - found)


def match_labels(
    labels_HW: NDArray[np.uint8],
    predicted_HW: NDArray[np.uint8],
    classes: int,
    instances_HW: NDArray[np.integer] | None = None,
) -> Matches:
    """The matches of all classes above 0, added up: predicted components against true objects of their class.

    True objects are `instances_HW`'s; without them, components of the true labels.
    """
    total = Matches(*(np.zeros(len(THRESHOLDS), np.int64) for _ in range(3)))
    for label in range(1, classes):
        if instances_HW is None:
            true_HW = components(labels_HW, label)
        else:
            true_HW = np.where(labels_HW == label, instances_HW, 0)
        total += match_objects(true_HW, components(predicted_HW, label))
    return total


def _numbered(objects_HW: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sizes by number, and the map renumbered without gaps from 1, the ground being 0 also where there is none."""
    numbers, indices, sizes = np.unique(objects_HW, return_inverse=True, return_counts=True)
    indices = indices.reshape(objects_HW.shape).astype(np.int64)
    if not numbers.size or numbers[0] != 0:
        return np.concatenate([[0], sizes]), indices + 1
    return sizes, indices
