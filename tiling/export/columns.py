"""Objects as batches of Arrow records: label, class, pixels, area and the polygon as WKB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from tiling.export.features import turned
from tiling.export.finished import Finished
from tiling.georeference.placement import Affine, flips, moved
from tiling.shapes import Shapes

GEOMETRY = "geometry"


def schema_of(finished: Finished) -> Any:
    """The columns, as `pyarrow.Schema`; the area is left out where a pixel's isn't known.

    Objects that were numbered have all columns of their table.
    """
    if finished.measured is not None:
        return finished.measured.schema.append(pa.field(GEOMETRY, pa.binary()))
    area = [(finished.area_name, pa.float64())] if finished.has_areas else []
    number = [("id", pa.int32())] if finished.built is not None else []
    columns = [*number, ("label", pa.int16()), ("class", pa.string()), ("pixels", pa.int64()), *area]
    return pa.schema([*columns, (GEOMETRY, pa.binary())])


def batches_of(
    finished: Finished, affine: Affine, seen: Callable[[NDArray[np.float64]], None] | None = None
) -> Iterator[Any]:
    """The objects as `pyarrow.RecordBatch`, their outer rings running anticlockwise.

    `seen` receives the places of the points of each batch.
    """
    schema = schema_of(finished)
    names = np.full(256, "", dtype=object)
    for label, item in finished.classes.items():
        names[label] = item.name
    for shapes in finished.shapes:
        points = moved(affine, shapes.points)
        if seen is not None:
            seen(points)
        areas = finished.areas(shapes)
        columns = {
            "id": pa.array(shapes.ids, pa.int32()),
            "label": pa.array(shapes.labels, pa.int16()),
            "class": pa.array(names[shapes.labels], pa.string()),
            "pixels": pa.array(shapes.pixels, pa.int64()),
            **({} if areas is None else {finished.area_name: pa.array(areas)}),
            GEOMETRY: pa.array(_wkb(shapes, turned(shapes, points) if flips(affine) else points), pa.binary()),
        }
        if finished.measured is not None:
            # What wasn't predicted has a polygon, and is no object: all else of it is null.
            rows = finished.measured.take(shapes.ids).combine_chunks()
            columns = (
                {name: rows.column(name).combine_chunks() for name in rows.schema.names}
                | columns
                | {"id": rows.column("id").combine_chunks()}
            )
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _wkb(shapes: Shapes, points: NDArray[np.float64]) -> Any:
    return shapely.to_wkb(shapes.polygons(points), byte_order=1)
