"""The CRS of an image as GDAL's own type."""

from __future__ import annotations

from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from tiling.errors import ExportError
from tiling.sources.facts import Georeference


def crs_of(georeference: Georeference) -> Any:
    """The CRS as `rasterio.crs.CRS`; None where the image names none, or GDAL can make nothing of what it says.

    Raises:
        ExportError: a name alone, which means nothing to GDAL.
    """
    if georeference.wkt is not None:
        return CRS.from_wkt(georeference.wkt)
    if not georeference.crs:
        return None
    try:
        return CRS.from_user_input(georeference.crs)
    except CRSError as error:
        raise ExportError(
            f"the image's CRS {georeference.crs!r} is none that GDAL knows ({error}): map coordinates would mean "
            f"nothing; give the image an EPSG code"
        ) from error
