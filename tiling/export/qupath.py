"""`qupath.geojson`: the objects as QuPath reads them (File > Import objects), in pixels of the image's level 0.

QuPath crops slides to the bounds that their scanner names (MRXS and others), and counts pixels from there; programs
that don't crop count from the corner of level 0, as `qupath-full.geojson` does.

https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from tiling.export.features import Placed, members, write_features
from tiling.export.finished import Finished
from tiling.export.qupath_measurements import Measurements
from tiling.georeference.placement import moved
from tiling.shapes import Shapes, in_larger_batches

DECIMALS = 4


def write_qupath(finished: Finished, paths: Sequence[Path]) -> None:
    """Every object is a detection of its class, measured; an area that was not predicted is an annotation."""
    _write(finished, paths[0], finished.placement.bounds_px)


def write_qupath_full(finished: Finished, paths: Sequence[Path]) -> None:
    """The same in pixels of the whole level 0, also where the slide has bounds."""
    _write(finished, paths[0], (0, 0))


def _write(finished: Finished, path: Path, first_px: tuple[int, int]) -> None:
    placement, classes = finished.placement, finished.classes
    measurements = None if finished.measured is None else Measurements.of(finished, finished.measured)

    def placed(shapes: Shapes) -> Placed:
        more = None if measurements is None else measurements.of_shapes(shapes)
        if placement.is_image and first_px == (0, 0):
            return Placed.of(shapes, shapes.points, 0, more=more)
        points = moved(placement.to_image, shapes.points) - (first_px[1], first_px[0])
        return Placed.of(shapes, points, 0 if np.array_equal(points, points.round()) else DECIMALS, more=more)

    @cache
    def of_class(label: int) -> bytes:
        item = classes[label]
        color = [int(item.color[i : i + 2], 16) for i in (1, 3, 5)]
        is_object = label < len(finished.run.classes)
        kind = "detection" if is_object else "annotation"
        return members({"objectType": kind, "classification": {"name": item.name, "color": color}})

    write_features(path, map(placed, in_larger_batches(finished.shapes)), lambda label, pixels, area: of_class(label))
