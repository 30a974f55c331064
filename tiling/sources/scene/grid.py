"""Grid of a scene: the one raster of pixels on which its members lie, and where each of them does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import Georeference, ImageFacts
from tiling.sources.limits import MAX_SIDE_PX
from tiling.sources.scene.target import crs_wkt, suggested

Affine = tuple[float, float, float, float, float, float]
Floats = npt.NDArray[np.float64]

WHOLE_PX = 0.01
"""By how much of a pixel a member may lie off the grid, anywhere, and still be taken as it is."""
_EDGE_POINTS = 65
_ROUNDING_PX = 1e-6


@dataclass(frozen=True, slots=True)
class Placing:
    """Place of a member on a grid.

    Attributes:
        shape: of the member, in its own pixels.
        box: pixels of the grid that it may touch; it may reach beyond the grid.
        shift: rows and columns from the member's corner to the grid's, where pixels of both are the same; else None.
        affine: of the member, from its pixels to its CRS.
        wkt: its CRS, where that is not the grid's.
        pixel: sides of a pixel of the grid in the member's, at its middle, the one down the grid first.
    """

    shape: tuple[int, int]
    box: Box
    shift: tuple[int, int] | None
    affine: Affine
    wkt: str | None
    pixel: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels of equal size in one CRS; without one they are those of the images themselves, unless it is placed."""

    shape: tuple[int, int]
    affine: Affine
    wkt: str | None
    crs: str | None
    is_placed: bool = False

    @property
    def georeference(self) -> Georeference | None:
        return None if self.wkt is None and not self.is_placed else Georeference(self.crs, self.affine, self.wkt)

    def places(self, box: Box, placing: Placing, within: float = 0.5) -> tuple[Floats, Floats]:
        """Places of a box's pixels in a member, `(y, x)` each, in its pixels from its corner.

        They are the pixels' centres; for `within` 0 and 1 their first and last corners.
        """
        rows, cols = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(np.float64) + within
        return _to_pixels(*_moved(*_to_map(rows, cols, self.affine), self.wkt, placing.wkt), placing.affine)


def common_grid(images: list[ImageFacts], names: list[str], crs: str | None = None) -> tuple[Grid, list[Placing]]:
    """The grid of the finest image, of two equal ones of the first, large enough for all; and where each lies on it.

    `names` are what errors call the images; `crs` is the grid's where that of the finest image isn't meant.

    Raises:
        SourceError: they can't lie on one grid.
    """
    if all(image.georeference is None for image in images):
        if crs is not None:
            raise SourceError(
                f"{names[0]} says no place on the earth, without which --crs has no meaning; leave it out"
            )
        return _by_pixels(images)
    references = [_placed(image, name) for image, name in zip(images, names, strict=True)]
    base = _finest(images, references, names)
    reference, whole = references[base], Box(0, 0, *_shape(images[base]))
    if crs is not None and not _is_same(reference.wkt, crs_wkt(crs)):
        reference, shape = suggested(reference, whole.shape, crs, names[base])
        whole = Box(0, 0, *shape)
    assert reference.affine is not None
    each_of = zip(images, references, names, strict=True)
    wide = [_placing(image, each, reference, name) for image, each, name in each_of]
    # GDAL cuts its grid at the points that it looks at; so is that of a single file.
    wide[base] = replace(wide[base], box=wide[base].box.intersect(whole))
    top, left = min(each.box.y0 for each in wide), min(each.box.x0 for each in wide)
    bottom, right = max(each.box.y1 for each in wide), max(each.box.x1 for each in wide)
    if bottom <= top or right <= left:
        raise SourceError(f"{names[base]} has no area where --crs {crs} leads; give another, or correct its own CRS")
    if bottom - top > MAX_SIDE_PX or right - left > MAX_SIDE_PX:
        raise SourceError(f"its files lie so far apart that the scene has {bottom - top} x {right - left} px; split it")
    a, b, c, d, e, f = reference.affine
    affine = (a, b, c + a * left + b * top, d, e, f + d * left + e * top)
    grid = Grid((bottom - top, right - left), affine, reference.wkt, reference.crs)
    return grid, [_moved_by(each, top, left) for each in wide]


def _by_pixels(images: list[ImageFacts]) -> tuple[Grid, list[Placing]]:
    """Images that say nothing of their place lie pixel on pixel, where they have the same size."""
    shapes = {(image.levels[0].height, image.levels[0].width) for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(f"{height} x {width}" for height, width in sorted(shapes)[:3])
        raise SourceError(
            f"its files say no place on the earth and have different sizes ({sizes} px), so that nothing says how they "
            "lie together; give files of one size, or with a CRS"
        )
    shape = shapes.pop()
    same: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    grid = Grid(shape, same, None, None)
    return grid, [Placing(shape, Box(0, 0, *shape), (0, 0), same, None) for _ in images]


def _placed(image: ImageFacts, name: str) -> Georeference:
    reference = image.georeference
    if reference is None or reference.affine is None or reference.wkt is None:
        lacks = "no place on the earth" if reference is None else "a CRS" if reference.affine else "a geotransform"
        says = "says" if reference is None else "lacks"
        raise SourceError(
            f"{name} {says} {lacks}, and others have one: nothing says how they lie together; "
            "give it one (gdal_edit.py -a_srs, gdalwarp)"
        )
    if _area(reference.affine) <= 0:
        raise SourceError(f"{name} has a geotransform without area; correct it")
    return reference


def _finest(images: list[ImageFacts], references: list[Georeference], names: list[str]) -> int:
    """Index of the one with the smallest pixels, in the CRS of the first."""
    areas: list[float] = []
    for image, reference in zip(images, references, strict=True):
        row, col = image.levels[0].height / 2, image.levels[0].width / 2
        rows, cols = np.array([row, row, row + 1]), np.array([col, col + 1, col])
        assert reference.affine is not None
        x, y = _moved(*_to_map(rows, cols, reference.affine), reference.wkt, references[0].wkt)
        areas.append(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])))
    lost = [name for name, area in zip(names, areas, strict=True) if not math.isfinite(area)]
    if lost:
        raise SourceError(f"{lost[0]} lies beyond where the CRS of the first one leads; leave it out")
    limit = min(areas) * 1.001
    return next(number for number, area in enumerate(areas) if area <= limit)


def _placing(image: ImageFacts, own: Georeference, grid: Georeference, name: str) -> Placing:
    assert own.affine is not None
    assert grid.affine is not None
    shape = _shape(image)
    wkt = None if own.wkt == grid.wkt or _is_same(own.wkt, grid.wkt) else own.wkt
    rows, cols = _outline(*shape)
    there = _moved(*_to_map(rows, cols, own.affine), own.wkt, None if wkt is None else grid.wkt)
    y, x = _to_pixels(*there, grid.affine)
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise SourceError(f"{name} lies beyond where the CRS of the finest one leads; leave it out")
    shift = round(float(y[0])), round(float(x[0]))
    if wkt is None and max(np.abs(y - rows - shift[0]).max(), np.abs(x - cols - shift[1]).max()) < WHOLE_PX:
        return Placing(shape, Box(0, 0, *shape).translate(*shift), shift, own.affine, None)
    box = Box(
        math.floor(y.min() + _ROUNDING_PX),
        math.floor(x.min() + _ROUNDING_PX),
        math.ceil(y.max() - _ROUNDING_PX),
        math.ceil(x.max() - _ROUNDING_PX),
    )
    return Placing(shape, box, None, own.affine, wkt, _pixel(shape, own.affine, wkt, grid))


def _moved_by(placing: Placing, top: int, left: int) -> Placing:
    box = placing.box.translate(-top, -left)
    shift = None if placing.shift is None else (box.y0, box.x0)
    return replace(placing, box=box, shift=shift)


def _pixel(shape: tuple[int, int], affine: Affine, wkt: str | None, grid: Georeference) -> tuple[float, float]:
    """Sides of the grid's pixel at a member's middle, in the member's pixels, the one down the grid first."""
    assert grid.affine is not None
    middle = np.array([shape[0] / 2]), np.array([shape[1] / 2])
    row, col = _to_pixels(*_moved(*_to_map(*middle, affine), wkt, None if wkt is None else grid.wkt), grid.affine)
    rows, cols = row + np.array([-0.5, 0.5, 0, 0]), col + np.array([0, 0, -0.5, 0.5])
    y, x = _to_pixels(*_moved(*_to_map(rows, cols, grid.affine), grid.wkt, wkt), affine)
    return float(np.hypot(y[1] - y[0], x[1] - x[0])), float(np.hypot(y[3] - y[2], x[3] - x[2]))


def _shape(image: ImageFacts) -> tuple[int, int]:
    return image.levels[0].height, image.levels[0].width


def _outline(height: int, width: int) -> tuple[Floats, Floats]:
    """Points along an image's edge, its first corner first."""
    down, along = np.linspace(0, height, _EDGE_POINTS), np.linspace(0, width, _EDGE_POINTS)
    zero, one = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    rows = np.concatenate([zero, down, one * height, down])
    return rows, np.concatenate([along, one * width, along, zero])


def _area(affine: Affine) -> float:
    a, b, _, d, e, _ = affine
    return abs(a * e - b * d)


def _to_map(rows: Floats, cols: Floats, affine: Affine) -> tuple[Floats, Floats]:
    a, b, c, d, e, f = affine
    return a * cols + b * rows + c, d * cols + e * rows + f


def _to_pixels(x: Floats, y: Floats, affine: Affine) -> tuple[Floats, Floats]:
    """Rows and columns of map coordinates."""
    a, b, c, d, e, f = affine
    area = a * e - b * d
    return (a * (y - f) - d * (x - c)) / area, (e * (x - c) - b * (y - f)) / area


def _moved(x: Floats, y: Floats, source: str | None, target: str | None) -> tuple[Floats, Floats]:
    """Coordinates of one CRS in another; where no way leads, not finite. None is the same CRS."""
    if source == target or target is None:
        return x, y
    import rasterio

    with rasterio.Env(PROJ_NETWORK="OFF"):
        xs, ys = _transformed(x.ravel(), y.ravel(), source, target)
    return xs.reshape(x.shape), ys.reshape(y.shape)


def _transformed(x: Floats, y: Floats, source: str | None, target: str) -> tuple[Floats, Floats]:
    """The same by GDAL, which refuses all of them for one that lies off the earth, such as at 100 degrees north."""
    from rasterio._err import CPLE_BaseError
    from rasterio.warp import transform

    try:
        xs, ys = cast("tuple[list[float], list[float]]", transform(source, target, x, y))
        return np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    except CPLE_BaseError:
        if x.size == 1:
            return np.full(1, np.nan), np.full(1, np.nan)
    half = x.size // 2
    first, second = (_transformed(x[part], y[part], source, target) for part in (slice(half), slice(half, None)))
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _is_same(one: str | None, other: str | None) -> bool:
    from rasterio.crs import CRS

    return one is not None and other is not None and CRS.from_wkt(one) == CRS.from_wkt(other)
