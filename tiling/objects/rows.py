"""Polygons of a run's numbered objects, and of what was not predicted, from rows of both from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiling.objects.image import ObjectImage
from tiling.runs.mask import NOT_PREDICTED
from tiling.shapes import Shapes, polygonize

Rows = Iterable[tuple[NDArray[np.uint8], NDArray[np.int32]]]


def polygons_of(image: ObjectImage, rows: Rows, seen: Callable[[NDArray[np.uint8]], None]) -> Iterator[Shapes]:
    """The polygons of numbered objects with their classes, and of areas that were not predicted.

    Args:
        image: the objects.
        rows: the mask's labels and the objects' numbers, some rows at a time; pixels without data are background.
        seen: receives the labels.
    """
    # Not predicted areas come under the number after the last object's.
    not_predicted = image.count + 1
    classes = np.append(image.classes, np.uint8(NOT_PREDICTED))

    def keys() -> Iterator[NDArray[np.int32]]:
        for labels, numbers in rows:
            seen(labels)
            is_lost = labels == NOT_PREDICTED
            yield np.where(is_lost, np.int32(not_predicted), numbers) if is_lost.any() else numbers

    for shapes in polygonize(keys()):
        numbers = np.where(shapes.labels == not_predicted, 0, shapes.labels).astype(np.int32)
        yield replace(shapes, labels=classes[shapes.labels], ids=numbers)
