"""`objects.gpkg`: the objects in the image's own CRS, with a spatial index (OGC 12-128r18)."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyogrio
from pyogrio.errors import CRSError, DataLayerError, DataSourceError, FieldError, GeometryError

from tiling.export.columns import GEOMETRY, batches_of, schema_of
from tiling.export.finished import Finished
from tiling.export.subject import Subject
from tiling.georeference.crs import crs_of

LAYER = "objects"
_VERSION = "1.3"
"""GDAL 3.6, as in QGIS on Debian 12, warns of a later one at every opening."""


def expect_geopackage(subject: Subject) -> None:
    """Raise ExportError for an image without a place on the earth."""
    subject.expect_map("geopackage", "qupath or geoparquet, which hold pixels")


def write_geopackage(finished: Finished, paths: Sequence[Path]) -> None:
    """One layer of polygons."""
    placement = finished.placement
    assert placement.to_map is not None
    assert placement.georeference is not None
    crs = crs_of(placement.georeference)
    reader = pa.RecordBatchReader.from_batches(schema_of(finished), batches_of(finished, placement.to_map))
    with _write_errors(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.write_arrow(
            reader,
            str(paths[0]),
            layer=LAYER,
            driver="GPKG",
            geometry_name=GEOMETRY,
            geometry_type="Polygon",
            crs=crs.to_wkt() if crs is not None else None,
            VERSION=_VERSION,
        )


@contextmanager
def _write_errors() -> Generator[None]:
    """Raise OSError for what SQLite can't write: a full disk has no class of its own there."""
    try:
        yield
    except (CRSError, FieldError, GeometryError):
        raise
    except (DataLayerError, DataSourceError) as error:
        raise OSError(str(error)) from error
