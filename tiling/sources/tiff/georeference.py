"""Georeference of a TIFF as GDAL reads it (OGC GeoTIFF 1.1, 19-008r4, and the sidecar files).

GDAL is given a file in memory: one pixel with the image's own tags of place, and what lies beside the image. It never
opens the image itself, so that a hostile one meets our own limits first, a remote one needs no driver of GDAL's, and
no file beside it can lead anywhere.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import Any, cast
from uuid import uuid4

import numpy as np
import tifffile

from tiling.geometry import PixelSize
from tiling.sources.facts import Georeference
from tiling.sources.tiff.directory import Directory
from tiling.sources.tiff.sidecars import NO_SIDECARS, Sidecars

Affine = tuple[float, float, float, float, float, float]

_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS, _GEO_DOUBLES, _GEO_ASCII = (
    33550,
    33922,
    34264,
    34735,
    34736,
    34737,
)
_CITATIONS = (3073, 2049, 1026)
_MOST_NUMBERS = 65_536
_RADIANS_PER_DEGREE = math.pi / 180
# Options of GDAL that a user's environment could set otherwise, on one of two machines.
_OPTIONS = {
    "GDAL_GEOREF_SOURCES": "PAM,INTERNAL,TABFILE,WORLDFILE",
    "GTIFF_POINT_GEO_IGNORE": "FALSE",
    "GDAL_PAM_ENABLED": "YES",
    "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
    "PROJ_NETWORK": "OFF",
}


class _Quiet(logging.Filter):
    """Keeps what GDAL says of the file in memory out of the log: it names no file that a person has."""

    here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self.here, "quiet", False)


logging.getLogger("rasterio._env").addFilter(_Quiet())

Tag = tuple[int | str, int | str, int | None, Any, bool]


def read_georeference(directory: Directory, beside: Sidecars = NO_SIDECARS) -> Georeference | None:
    """Georeference of an image; None where neither its tags nor a file beside it say so."""
    keys = directory.values(_GEO_KEYS)
    tags = [*_tags(directory, keys)]
    if not tags and not beside.says_place:
        return None
    with _as_gdal_sees_it(tags, beside) as dataset:
        crs, affine, points = _crs(dataset), _affine(dataset), _points(dataset)
    if keys is None and crs is None and affine is None and not points:
        return None
    name = _name(crs) or _citation(directory, keys)
    return Georeference(name, affine, None if crs is None else crs.to_wkt(version="WKT2_2019"), points)


def georeference_of(dataset: Any) -> Georeference | None:
    """Place of an open file of GDAL's; None where it doesn't say so."""
    crs, affine, points = _crs(dataset), _affine(dataset), _points(dataset)
    if crs is None and affine is None and not points:
        return None
    return Georeference(_name(crs), affine, None if crs is None else crs.to_wkt(version="WKT2_2019"), points)


@contextmanager
def settings_of_gdal() -> Generator[None]:
    """The options under which GDAL reads places, without its words on a file in memory."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    options: Any = rasterio.Env(**cast("dict[str, Any]", _OPTIONS))
    with ExitStack() as held, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _Quiet.here.quiet = True
        held.callback(setattr, _Quiet.here, "quiet", False)
        held.enter_context(options)
        yield


def sidecar_nodata(beside: Sidecars) -> float | None:
    """The value for no data that GDAL's notes beside an image give its first band; it counts before the image's own."""
    if beside.aux is None or b"<NoDataValue" not in beside.aux:
        return None
    with _as_gdal_sees_it([], Sidecars(aux=beside.aux)) as dataset:
        return dataset.nodata


def ground_pixel_size(georeference: Georeference) -> PixelSize | None:
    """Sides of level 0's pixels in metres or degrees; None where the unit is unknown."""
    if georeference.affine is None or georeference.wkt is None:
        return None
    a, b, _, d, e, _ = georeference.affine
    y, x = math.hypot(b, e), math.hypot(a, d)
    if not (0 < y < math.inf and 0 < x < math.inf):
        return None
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    crs = CRS.from_wkt(georeference.wkt)
    try:
        if crs.is_geographic:
            degrees = crs.units_factor[1] / _RADIANS_PER_DEGREE
            # Degrees to the last bit: the factor is one of radians.
            degrees = 1.0 if abs(degrees - 1) < 1e-9 else degrees
            return PixelSize(y * degrees, x * degrees, "degree")
        metres = crs.linear_units_factor[1]
    except CRSError:
        return None
    return PixelSize(y * metres, x * metres, "m") if 0 < metres < math.inf else None


def _tags(directory: Directory, keys: Any) -> Iterator[Tag]:
    """The tags of place, as they stand in the file."""
    for code in (_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION):
        if numbers := _floats(directory, code):
            yield code, "d", len(numbers), numbers, True
    if keys is None:
        return
    numbers = tuple(int(key) for key in keys[:_MOST_NUMBERS] if 0 <= key < 2**16)
    yield _GEO_KEYS, "H", len(numbers), numbers, True
    if doubles := _floats(directory, _GEO_DOUBLES):
        yield _GEO_DOUBLES, "d", len(doubles), doubles, True
    if text := directory.text(_GEO_ASCII):
        yield _GEO_ASCII, "s", 0, text, True


@contextmanager
def _as_gdal_sees_it(tags: list[Tag], beside: Sidecars) -> Generator[Any]:
    """One pixel with those tags, opened by GDAL's own reader of GeoTIFF with what lies beside it."""
    from rasterio.io import MemoryFile

    file = BytesIO()
    # Float64, which holds every value for no data that a note beside the image may name.
    tifffile.imwrite(file, np.zeros((1, 1)), extratags=tags, metadata=None)
    folder = uuid4().hex
    with settings_of_gdal(), ExitStack() as held:
        image = held.enter_context(MemoryFile(file.getvalue(), dirname=folder, filename="image.tif"))
        for name, data in (("image.tfw", beside.world), ("image.tif.aux.xml", beside.aux)):
            if data:
                held.enter_context(MemoryFile(data, dirname=folder, filename=name))
        yield held.enter_context(image.open(driver="GTiff"))


def _affine(dataset: Any) -> Affine | None:
    """The geotransform; GDAL's identity stands for none."""
    if dataset.transform.is_identity:
        return None
    a, b, c, d, e, f = (float(value) for value in tuple(dataset.transform)[:6])
    return (a, b, c, d, e, f) if all(map(math.isfinite, (a, b, c, d, e, f))) else None


def _points(dataset: Any) -> tuple[tuple[float, ...], ...]:
    return tuple((point.col, point.row, 0.0, point.x, point.y, point.z or 0.0) for point in dataset.gcps[0])


def _crs(dataset: Any) -> Any:
    """The image's CRS, or that of its ground control points."""
    from rasterio.errors import CRSError

    try:
        crs = dataset.crs or dataset.gcps[1]
        return crs if crs and crs.to_wkt() else None
    except CRSError:
        return None


def _name(crs: Any) -> str | None:
    code = None if crs is None else crs.to_epsg()
    return None if code is None else f"EPSG:{code}"


def _citation(directory: Directory, keys: Any) -> str | None:
    """Name of a CRS without a code, as the file has it."""
    raw = () if keys is None else tuple(int(key) for key in keys)
    places = {raw[i]: (raw[i + 1], raw[i + 2], raw[i + 3]) for i in range(4, len(raw) - 3, 4)}
    ascii_params = directory.text(_GEO_ASCII)
    for citation in _CITATIONS:
        location, count, offset = places.get(citation, (0, 0, 0))
        text = ascii_params[offset : offset + count].rstrip("|\0").strip()
        if location == _GEO_ASCII and text:
            return text
    return None


def _floats(directory: Directory, code: int) -> tuple[float, ...]:
    values = directory.values(code)
    return () if values is None else tuple(float(value) for value in values[:_MOST_NUMBERS])
