"""Objects by their definition: on the whole image in one array, with loops and SciPy, as docs/objects.md words it."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tiling.objects.spec import ObjectSpec

NO_CLASS = 255
NEIGHBOURS = ((-1, 0), (0, -1), (0, 1), (1, 0))


def objects_of(
    labels_YX: NDArray[np.uint8], spec: ObjectSpec, probabilities_CYX: NDArray[np.uint8] | None = None
) -> NDArray[np.int32]:
    """The number of each pixel's object."""
    seeds_YX = _numbered(_seed_classes(labels_YX, spec, probabilities_CYX))
    objects_YX = _grown(seeds_YX, labels_YX, spec, probabilities_CYX)
    seeds, first = np.unique(seeds_YX, return_index=True)
    classes = {int(n): int(labels_YX.ravel()[at]) for n, at in zip(seeds, first, strict=True) if n}
    _fill(objects_YX, labels_YX, {n for n, label in classes.items() if label in spec.filled})
    sizes = np.bincount(objects_YX.ravel(), minlength=len(seeds) + 1)
    ranks = np.zeros(sizes.size, np.int32)
    kept = [number for number, label in classes.items() if sizes[number] >= spec.least_px.get(label, 1)]
    ranks[kept] = np.arange(1, len(kept) + 1)
    return ranks[objects_YX]


def _seed_classes(
    labels_YX: NDArray[np.uint8], spec: ObjectSpec, probabilities_CYX: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    classes_YX = np.where(labels_YX == NO_CLASS, 0, labels_YX)
    if spec.rule == "border":
        classes_YX = np.where(labels_YX == spec.border, 0, classes_YX)
    if spec.rule == "distance":
        assert probabilities_CYX is not None
        assert spec.channel is not None
        heights_YX = probabilities_CYX[spec.channel]
        for y, x in np.argwhere(classes_YX):
            near = heights_YX[max(0, y - spec.spacing_px) : y + spec.spacing_px + 1]
            near = near[:, max(0, x - spec.spacing_px) : x + spec.spacing_px + 1]
            if heights_YX[y, x] < spec.level or heights_YX[y, x] < near.max():
                classes_YX[y, x] = 0
    return classes_YX.astype(np.uint8)


def _numbered(classes_YX: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Components of each class, numbered together by their first pixels."""
    apart_YX, count = np.zeros(classes_YX.shape, np.int32), 0
    for label in np.unique(classes_YX[classes_YX > 0]):
        found_YX, more = _labelled(classes_YX == label)
        apart_YX[found_YX > 0] = found_YX[found_YX > 0] + count
        count += more
    numbers = dict.fromkeys(apart_YX[apart_YX > 0].tolist())
    ranks = np.zeros(count + 1, np.int32)
    for rank, number in enumerate(numbers, start=1):
        ranks[number] = rank
    return ranks[apart_YX]


def _grown(
    seeds_YX: NDArray[np.int32],
    labels_YX: NDArray[np.uint8],
    spec: ObjectSpec,
    probabilities_CYX: NDArray[np.uint8] | None,
) -> NDArray[np.int32]:
    objects_YX, (height, width) = seeds_YX.copy(), seeds_YX.shape
    is_class_YX = (labels_YX != 0) & (labels_YX != NO_CLASS)
    open_YX = labels_YX == spec.border if spec.rule == "border" else is_class_YX
    for step in range(1, spec.radius_px + 1):
        before_YX = objects_YX.copy()
        for y, x in np.argwhere(open_YX & (before_YX == 0)):
            if spec.rule == "distance":
                assert probabilities_CYX is not None
                level = 255 * (spec.radius_px - step) / spec.radius_px
                if probabilities_CYX[spec.channel, y, x] < level:
                    continue
            beside = [(y + dy, x + dx) for dy, dx in NEIGHBOURS if 0 <= y + dy < height and 0 <= x + dx < width]
            if spec.rule == "distance":
                beside = [each for each in beside if labels_YX[each] == labels_YX[y, x]]
            objects_YX[y, x] = min((before_YX[each] for each in beside if before_YX[each]), default=0)
    return objects_YX


def _fill(objects_YX: NDArray[np.int32], labels_YX: NDArray[np.uint8], filled: set[int]) -> None:
    known_YX = np.pad(np.where((objects_YX == 0) & (labels_YX == NO_CLASS), -1, objects_YX), 1, constant_values=-1)
    free_YX, _ = _labelled(known_YX == 0)
    for area, (rows, cols) in enumerate(ndimage.find_objects(free_YX), start=1):
        around = slice(rows.start - 1, rows.stop + 1), slice(cols.start - 1, cols.stop + 1)
        area_YX = free_YX[around] == area
        touching = np.unique(known_YX[around][ndimage.binary_dilation(area_YX) & ~area_YX])
        if len(touching) == 1 and int(touching[0]) in filled:
            objects_YX[rows.start - 1 : rows.stop - 1, cols.start - 1 : cols.stop - 1][area_YX[1:-1, 1:-1]] = touching[
                0
            ]


def _labelled(where_YX: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    return cast("tuple[NDArray[np.int32], int]", ndimage.label(where_YX))
