"""`mask.tif`: a Cloud-optimised GeoTIFF that lies exactly on the source (OGC 21-026).

GDAL's own driver orders the file; the overviews are the mask's levels, so that they hold the majority of labels. What
a full disk refuses while GDAL closes a file it tells nobody but the terminal: so every file is read back.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError
from rasterio.warp import transform

from tiling.errors import ExportError
from tiling.export.destination import scratch
from tiling.export.finished import Finished
from tiling.export.subject import Subject
from tiling.export.tiff import TILE_PX, is_big, tiles_of
from tiling.geometry import Box
from tiling.georeference.crs import crs_of
from tiling.georeference.placement import Placement
from tiling.runs.mask import NOT_PREDICTED
from tiling.runs.ome_metadata import LabelClass
from tiling.runs.pyramid import Pyramid
from tiling.runs.run import named
from tiling.runs.uncomputed import NO_DATA_NAME, NOT_PREDICTED_NAME

_TRANSFORMATION, _GDAL_METADATA, _GDAL_NODATA = 34264, 42112, 42113
CACHE_MB = 64
PIECE_PX = 2048
"""The side of what is read back at once."""
CRS_MAY_DIFFER = 1e-7
"""Of the image's extent: a thousandth of a pixel where it has 10,000."""


def expect_cog(subject: Subject) -> None:
    """Raise ExportError for an image that says nothing of where it lies."""
    georeference = subject.placement.georeference
    if georeference is None or (georeference.affine is None and not georeference.tiepoints):
        subject.expect_map("cog", "ome-tiff")


def write_cog(finished: Finished, paths: Sequence[Path]) -> None:
    """The labels with a colour table, and 255 as nodata."""
    names = {0: finished.run.classes[0], **finished.classes}
    if finished.run.fill is not None:
        names[NOT_PREDICTED] = LabelClass(f"{NO_DATA_NAME} or {NOT_PREDICTED_NAME}", names[NOT_PREDICTED].color)
    colors = np.zeros((3, 256), np.uint16)
    for label, item in names.items():
        # TIFF's colours have 16 bits: 255 becomes 65535.
        colors[:, label] = [257 * int(item.color[i : i + 2], 16) for i in (1, 3, 5)]
    tags = [
        (_GDAL_NODATA, "s", 0, str(NOT_PREDICTED), True),
        (_GDAL_METADATA, "s", 0, _class_names(names).encode(), True),
    ]
    looks = {"photometric": "palette", "colormap": colors, "extratags": tags}
    _write(finished, finished.mask.pyramid, paths[0], looks)


def write_probabilities_cog(finished: Finished, paths: Sequence[Path]) -> None:
    """One band per class, 255 being certainty."""
    assert finished.probabilities is not None
    described = "".join(
        f'<Item name="DESCRIPTION" sample="{index}" role="description">{_escaped(item.name)}</Item>'
        for index, item in enumerate(named(finished.run.card.probabilities))
    )
    tags = [(_GDAL_METADATA, "s", 0, f"<GDALMetadata>{described}</GDALMetadata>".encode(), True)]
    # The planes of one band can't be separate, and tifffile refuses to say that they are.
    planes = {"planarconfig": "separate"} if len(finished.run.card.probabilities) > 1 else {}
    looks = {"photometric": "minisblack", **planes, "extratags": tags}
    _write(finished, finished.probabilities.pyramid, paths[0], looks)


def _write(finished: Finished, pyramid: Pyramid, path: Path, looks: dict[str, Any]) -> None:
    plain = scratch(path)
    to_map = finished.placement.to_map
    if to_map is not None:
        a, b, c, d, e, f = to_map
        matrix = (a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        looks["extratags"].append((_TRANSFORMATION, "d", len(matrix), matrix, True))
    try:
        _write_levels(pyramid, plain, looks, finished.threads)
        with gdal_errors(), rasterio.Env(GDAL_CACHEMAX=CACHE_MB, GDAL_TIFF_INTERNAL_MASK=True):
            with rasterio.open(plain, "r+") as dataset:
                _place(dataset, finished.placement)
                place = _Place.of(dataset)
            rasterio.shutil.copy(
                plain,
                path,
                driver="COG",
                compress="DEFLATE",
                blocksize=TILE_PX,
                overviews="FORCE_USE_EXISTING" if len(pyramid.levels) > 1 else "NONE",
                num_threads=finished.threads,
                bigtiff="YES" if is_big(pyramid) else "NO",
            )
            _expect_placed(path, place)
            for level in range(len(pyramid.levels)):
                _expect_level(path, pyramid, level, finished.threads)
    finally:
        for left in plain.parent.glob(f"{plain.name}*"):
            left.unlink(missing_ok=True)


@contextmanager
def gdal_errors() -> Generator[None]:
    """Raise OSError for what rasterio has no class of its own for: its copying lets GDAL's bare errors through."""
    try:
        yield
    except (CPLE_BaseError, RasterioError) as error:
        raise OSError(str(error)) from error


def _write_levels(pyramid: Pyramid, path: Path, looks: dict[str, Any], threads: int) -> None:
    """A plain tiled TIFF whose further pages GDAL takes for overviews."""
    with tifffile.TiffWriter(path, bigtiff=is_big(pyramid)) as tiff:
        for level, array in enumerate(pyramid.levels):
            channels = range(array.shape[0]) if array.ndim == 3 else (None,)
            fill = NOT_PREDICTED if array.ndim == 2 else 0
            tiff.write(
                (tile for channel in channels for tile in tiles_of(pyramid, level, channel, fill)),
                shape=array.shape,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                compression="zlib",
                compressionargs={"level": 1},
                maxworkers=threads,
                subfiletype=1 if level else 0,
                metadata=None,
                **looks,
            )


def _place(dataset: Any, placement: Placement) -> None:
    """Give the file, which has its geotransform, its CRS; or its ground control points."""
    georeference = placement.georeference
    if georeference is None:
        raise ExportError("a COG needs a georeference; use ome-tiff")
    crs = crs_of(georeference)
    if placement.to_map is not None:
        if crs is not None:
            dataset.crs = crs
        return
    # To image pixels is a scale here: a point's place in the mask is its place in the image over that.
    a, _, c, _, e, f = placement.to_image
    points = [
        GroundControlPoint(row=(row - f) / e, col=(col - c) / a, x=x, y=y, z=z)
        for col, row, _, x, y, z in georeference.tiepoints
    ]
    dataset.gcps = (points, crs)


@dataclass(frozen=True, slots=True)
class _Place:
    """Georeference as GDAL takes it; `points` are the corners on the map, or the ground control points."""

    crs: Any
    transform: Any
    points: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, dataset: Any) -> _Place:
        height, width = dataset.shape
        corners = [dataset.transform @ corner for corner in product((0, width), (0, height))]
        points = [(point.x, point.y) for point in dataset.gcps[0]] or corners
        return cls(dataset.gcps[1] if dataset.gcps[0] else dataset.crs, dataset.transform, tuple(points))


def _expect_placed(path: Path, place: _Place) -> None:
    """Raise OSError where the file doesn't say that it lies there."""
    with rasterio.open(path) as dataset:
        found = _Place.of(dataset)
    if (found.transform, found.points) != (place.transform, place.points) or (found.crs is None) != (place.crs is None):
        raise OSError("its place on the earth is not in the file: the disk may not have taken it whole")
    if found.crs != place.crs and not _is_same_on_earth(place, found.crs):
        raise OSError(
            f"a GeoTIFF can't hold its CRS ({place.crs.to_string()[:200]}): read again, it is another, by more than "
            f"{CRS_MAY_DIFFER:g} of the image's extent; use ome-tiff, or give the image a CRS as the EPSG defines it"
        )


def _is_same_on_earth(place: _Place, crs: Any) -> bool:
    """True if the points lie where they lay, in a CRS of which GDAL kept the code and not the definition's digits."""
    xs, ys = zip(*place.points, strict=True)
    try:
        moved_xs, moved_ys, *_ = transform(crs, place.crs, xs, ys)
    except RasterioError:
        return False
    extent = max(max(xs) - min(xs), max(ys) - min(ys))
    moved = np.subtract([moved_xs, moved_ys], [xs, ys])
    return bool(np.isfinite(moved).all() and np.abs(moved).max() <= CRS_MAY_DIFFER * extent)


def _expect_level(path: Path, pyramid: Pyramid, level: int, threads: int) -> None:
    """Raise OSError where a level, read again piece by piece, isn't the pyramid's."""
    overview: dict[str, Any] = {"overview_level": level - 1} if level else {}
    height, width = pyramid.levels[level].shape[-2:]
    with rasterio.open(path, num_threads=threads, **overview) as dataset:
        for top, left in product(range(0, height, PIECE_PX), range(0, width, PIECE_PX)):
            box = Box(top, left, min(top + PIECE_PX, height), min(left + PIECE_PX, width))
            expected = pyramid.read(box, level)
            read = dataset.read(window=((box.y0, box.y1), (box.x0, box.x1)))
            if not np.array_equal(read, expected.reshape(-1, *box.shape)):
                raise OSError(
                    f"level {level} isn't in the file as it was written: the disk may not have taken it whole"
                )


def _class_names(names: dict[int, LabelClass]) -> str:
    items = (f'<Item name="CLASS_{label}">{_escaped(item.name)}</Item>' for label, item in names.items())
    return f"<GDALMetadata>{''.join(items)}</GDALMetadata>"


def _escaped(text: str) -> str:
    """As GDAL stores it, which unescapes twice."""
    return escape(escape(text))
