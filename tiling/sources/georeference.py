"""Where a GeoTIFF lies on the earth: OGC GeoTIFF 1.1 (19-008r4)."""

from __future__ import annotations

import math

from tiling.geometry import PixelSize
from tiling.sources.directory import Directory
from tiling.sources.facts import Georeference

Affine = tuple[float, float, float, float, float, float]

_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS, _GEO_DOUBLES, _GEO_ASCII = (
    33550,
    33922,
    34264,
    34735,
    34736,
    34737,
)
_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC_CRS, _PROJECTED_CRS, _LINEAR_UNITS = 1024, 1025, 2048, 3072, 3076
_CITATIONS = (3073, 2049, 1026)
_PROJECTED, _GEOGRAPHIC = 1, 2
_PIXEL_IS_POINT = 2
_USER_DEFINED = 32767
_METRES = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937, 9036: 1000.0}


def read_georeference(directory: Directory) -> Georeference | None:
    """The file's georeference, or None where it has neither keys nor a transformation."""
    keys = directory.values(_GEO_KEYS)
    affine = _affine(directory)
    tiepoints = _floats(directory, _TIEPOINTS)
    if keys is None and affine is None and not tiepoints:
        return None
    raw = tuple(int(key) for key in keys) if keys is not None else ()
    numbers = _short_keys(raw)
    if affine is not None and numbers.get(_RASTER_TYPE) == _PIXEL_IS_POINT:
        # Points are pixel centres; ours are corners.
        a, b, c, d, e, f = affine
        affine = (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
    points = tuple(tiepoints[i : i + 6] for i in range(0, len(tiepoints) - 5, 6)) if affine is None else ()
    ascii_params = directory.text(_GEO_ASCII)
    return Georeference(
        _crs(raw, numbers, ascii_params), affine, raw, _floats(directory, _GEO_DOUBLES), ascii_params, points
    )


def ground_pixel_size(georeference: Georeference) -> PixelSize | None:
    """Sides of level 0's pixels in metres or degrees; None where the unit is unknown.

    A projected CRS without a linear unit of its own is taken to be in metres.
    """
    if georeference.affine is None:
        return None
    a, b, _, d, e, _ = georeference.affine
    y, x = math.hypot(b, e), math.hypot(a, d)
    if not (0 < y < math.inf and 0 < x < math.inf):
        return None
    numbers = _short_keys(georeference.geokeys)
    if numbers.get(_MODEL_TYPE) == _GEOGRAPHIC:
        return PixelSize(y, x, "degree")
    metres = _METRES.get(numbers.get(_LINEAR_UNITS, 9001))
    if numbers.get(_MODEL_TYPE) != _PROJECTED or metres is None:
        return None
    return PixelSize(y * metres, x * metres, "m")


def _affine(directory: Directory) -> Affine | None:
    matrix = _floats(directory, _TRANSFORMATION)
    if len(matrix) >= 16:
        return matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    scale, ties = _floats(directory, _PIXEL_SCALE), _floats(directory, _TIEPOINTS)
    if len(scale) < 2 or len(ties) < 6:
        return None
    col, row, _, x, y, _ = ties[:6]
    return scale[0], 0.0, x - col * scale[0], 0.0, -scale[1], y + row * scale[1]


def _crs(keys: tuple[int, ...], numbers: dict[int, int], ascii_params: str) -> str | None:
    for key in (_PROJECTED_CRS, _GEOGRAPHIC_CRS):
        code = numbers.get(key, 0)
        if 0 < code < _USER_DEFINED:
            return f"EPSG:{code}"
        if code == _USER_DEFINED:
            break
    places = {keys[i]: keys[i + 1 : i + 4] for i in range(4, len(keys) - 3, 4)}
    for citation in _CITATIONS:
        location, count, offset = places.get(citation, (0, 0, 0))
        text = ascii_params[offset : offset + count].rstrip("|\0").strip()
        if location == _GEO_ASCII and text:
            return text
    return None


def _short_keys(keys: tuple[int, ...]) -> dict[int, int]:
    """Keys whose value stands in the directory itself."""
    return {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}


def _floats(directory: Directory, code: int) -> tuple[float, ...]:
    values = directory.values(code)
    return () if values is None else tuple(float(value) for value in values[:65_536])
