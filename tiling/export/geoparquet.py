"""`objects.parquet`: the objects as GeoParquet 1.1, in the image's CRS, or in pixels of its level 0 where it has none.

https://geoparquet.org/releases/v1.1.0/
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

from tiling.export.columns import GEOMETRY, batches_of, schema_of
from tiling.export.finished import Finished
from tiling.georeference.crs import crs_of


def write_geoparquet(finished: Finished, paths: Sequence[Path]) -> None:
    """One row group per batch of objects."""
    placement = finished.placement
    affine = placement.to_map or placement.to_image
    georeference = placement.georeference if placement.to_map else None
    crs = crs_of(georeference) if georeference is not None else None
    bounds: list[NDArray[np.float64]] = []
    # Beside a stored Arrow schema, readers wouldn't see the description that is added at the end.
    with parquet.ParquetWriter(paths[0], schema_of(finished), compression="zstd", store_schema=False) as writer:
        for batch in batches_of(finished, affine, lambda points: bounds.append(_bounds(points))):
            writer.write_batch(batch)
        description = json.dumps(_description(crs.to_dict(projjson=True) if crs is not None else None, bounds))
        writer.add_key_value_metadata({"geo": description})


def _bounds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([points.min(axis=0), points.max(axis=0)])


def _description(crs: dict[str, Any] | None, bounds: list[NDArray[np.float64]]) -> dict[str, Any]:
    """The file's metadata; without `crs: null` a reader takes longitude and latitude."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"] if bounds else [],
        "crs": crs,
        "orientation": "counterclockwise",
        "edges": "planar",
    }
    if bounds:
        column["bbox"] = [*np.min([low for low, _ in bounds], axis=0), *np.max([high for _, high in bounds], axis=0)]
    return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
