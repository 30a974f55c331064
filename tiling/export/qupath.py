"""`qupath.geojson`: the objects as QuPath reads them (File > Import objects), in pixels of the image's level 0.

https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tiling.export.features import Placed, write_features
from tiling.export.finished import Finished
from tiling.placement import moved
from tiling.shapes import Shapes

DECIMALS = 4


def write_qupath(finished: Finished, paths: Sequence[Path]) -> None:
    """Every object is a detection of its class; an area that was not predicted is an annotation."""
    placement, classes = finished.placement, finished.classes

    def placed(shapes: Shapes) -> Placed:
        if placement.is_image:
            return Placed.of(shapes, shapes.points, 0)
        points = moved(placement.to_image, shapes.points)
        return Placed.of(shapes, points, 0 if np.array_equal(points, points.round()) else DECIMALS)

    @cache
    def of_class(label: int) -> dict[str, Any]:
        item = classes[label]
        color = [int(item.color[i : i + 2], 16) for i in (1, 3, 5)]
        is_object = label < len(finished.run.classes)
        return {
            "objectType": "detection" if is_object else "annotation",
            "classification": {"name": item.name, "color": color},
        }

    write_features(paths[0], map(placed, finished.shapes), lambda label, pixels, area: of_class(label))
