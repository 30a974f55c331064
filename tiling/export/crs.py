"""The CRS of an image as GDAL and PROJ know it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioIOError
from rasterio.io import MemoryFile

from tiling.errors import ExportError
from tiling.sources.facts import Georeference

_TRANSFORMATION, _GEO_KEYS, _GEO_DOUBLES, _GEO_ASCII = 34264, 34735, 34736, 34737


def crs_of(georeference: Georeference) -> Any:
    """The CRS as `rasterio.crs.CRS`; None where the image names none, or GDAL can make nothing of the file's keys.

    GDAL itself reads the file's raw keys, so that a CRS without a code comes out as it went in.

    Raises:
        ExportError: a name, without keys, that means nothing to GDAL.
    """
    if georeference.geokeys:
        return _from_keys(georeference)
    if not georeference.crs:
        return None
    try:
        return CRS.from_user_input(georeference.crs)
    except CRSError as error:
        raise ExportError(
            f"the image's CRS {georeference.crs!r} is none that GDAL knows ({error}): map coordinates would mean "
            f"nothing; give the image an EPSG code"
        ) from error


def _from_keys(georeference: Georeference) -> Any:
    keys = georeference.geokeys
    # Without a geotransform GDAL warns of every such file.
    tags: list[tuple[int | str, int | str, int | None, Any, bool]] = [
        (_TRANSFORMATION, "d", 16, (2.0, *(0.0,) * 4, -2.0, *(0.0,) * 9, 1.0), True)
    ]
    tags.append((_GEO_KEYS, "H", len(keys), keys, True))
    if georeference.double_params:
        tags.append((_GEO_DOUBLES, "d", len(georeference.double_params), georeference.double_params, True))
    if georeference.ascii_params:
        tags.append((_GEO_ASCII, "s", 0, georeference.ascii_params, True))
    file = BytesIO()
    tifffile.imwrite(file, np.zeros((1, 1), np.uint8), extratags=tags, metadata=None)
    try:
        with MemoryFile(file.getvalue()) as memory, memory.open() as dataset:
            return dataset.crs
    except (CRSError, RasterioIOError):
        return None
