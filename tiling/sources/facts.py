"""Facts of an image that are known before a pixel is read: levels, bands, georeference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.sources.matching import matched
from tiling.sources.series import FileImage

Scale = tuple[float, float]
"""Scale and offset of a band: its value is the stored one times the first plus the second."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid; level 0 is the full resolution.

    `downsample` is the side of this level's pixel in pixels of level 0 (the mean over both axes).
    """

    index: int
    height: int
    width: int
    downsample: float
    pixel_size: PixelSize | None

    @property
    def box(self) -> Box:
        return Box(0, 0, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Georeference:
    """Place of level 0 on the earth, as GDAL reads it.

    `affine` is `(a, b, c, d, e, f)` with `x = a*col + b*row + c` and `y = d*col + e*row + f`, from the corner
    (not the centre) of a pixel to map coordinates, x to the east; None where only ground control points are known.
    `crs` is a name for people, `"EPSG:n"` or the file's own citation; `wkt` says what it is. `tiepoints` are
    `(col, row, k, x, y, z)`.
    """

    crs: str | None
    affine: tuple[float, float, float, float, float, float] | None
    wkt: str | None = None
    tiepoints: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """All that is known of an image without its pixels; small, and safe to send to another process.

    `memory_bytes` is the most that reading holds besides the boxes that it returns. `pages` is more
    than 1 for a stack of which nothing says what it is: one page of it is read. `focal_planes` and `times` are how many
    there are to choose one from. `has_mask` is whether the file says which pixels hold data, `lacks_by_value` whether
    its values do, where that isn't known from `dtype` and `nodata`: of a view that has stretched them. `images` are
    those of a file that has several, and `series` the number of the one that is read. `alpha` are the names of channels
    that are no bands unless they are asked for. `is_slide`: slide scanners alone write that format.
    `origins_px` are where the first pixel's centre of each level lies in the file's own coordinates, in that level's
    pixels, y before x; empty where that is the corner of those coordinates. `bounds_px` is where what the scanner took
    begins on level 0, y before x: programs that crop slides to it count pixels from there.
    `scales` are scale and offset of each band, which make its values of those that are stored; empty where they are so.
    `resampled` are bands of a scene that don't lie on its grid as they are, each with how they are resampled.
    `orientation` is what TIFF 6.0 and EXIF call so, 1 to 8; pixels stay as they are stored whatever it says.
    """

    format: str
    bands: tuple[str, ...]
    dtype: np.dtype[np.generic]
    levels: tuple[Level, ...]
    photometric: str
    nodata: float | None = None
    georeference: Georeference | None = None
    has_alpha: bool = False
    memory_bytes: int = 0
    pages: int = 1
    focal_planes: int = 1
    times: int = 1
    has_mask: bool = False
    origins_px: tuple[tuple[float, float], ...] = ()
    bounds_px: tuple[int, int] = (0, 0)
    orientation: int = 1
    images: tuple[FileImage, ...] = ()
    series: int = 0
    alpha: tuple[str, ...] = ()
    is_slide: bool = False
    lacks_by_value: bool | None = None
    scales: tuple[Scale, ...] = ()
    resampled: tuple[tuple[str, str], ...] = ()

    def is_same(self, other: ImageFacts) -> bool:
        """True if both say the same; a no-data value that is no number equals itself here."""
        both_nan = self.nodata != self.nodata and other.nodata != other.nodata
        return replace(self, nodata=None) == replace(other, nodata=None) and (both_nan or self.nodata == other.nodata)

    @property
    def may_lack_data(self) -> bool:
        """True if some pixel may hold no data."""
        if self.has_mask or self.lacks_by_value is not None:
            return self.has_mask or bool(self.lacks_by_value)
        return self.dtype.kind == "f" or matched(self.nodata, self.dtype) is not None


@dataclass(frozen=True, slots=True)
class Moment:
    """Plane of a file that is read: its focal plane and point in time, from 0, its image, and whether with alpha.

    `series` is a number from 0, or a name; None leaves it to `choose_image`. `alpha` makes bands of alpha channels.
    `damaged` segments, by level, plane and number, are read as if they had never been written. `crs` and `resampling`
    are of the grid of a scene (`tiling.sources.scene`).
    """

    z: int = 0
    t: int = 0
    series: int | str | None = None
    alpha: bool = False
    damaged: tuple[tuple[int, int, int], ...] = ()
    crs: str | None = None
    resampling: str = "auto"

    def expect_in(self, focal_planes: int, times: int) -> None:
        """Raise `SourceError` where there is no such one."""
        if self.z >= focal_planes or self.t >= times:
            raise SourceError(
                f"there is no z {self.z} at t {self.t}: the image has {focal_planes} focal plane(s) and {times} "
                f"point(s) in time, counted from 0; give --z 0 to {focal_planes - 1} and --t 0 to {times - 1}"
            )

    def expect_one_image(self) -> None:
        """Raise `SourceError` where another image than the only one is asked for."""
        if self.series not in (None, 0, "0"):
            raise SourceError(f"there is no series {self.series!r}: the file has one image; leave out --series")


FIRST = Moment()


class Reader(Protocol):
    """An open file of one format. Safe to call from several threads at once."""

    @property
    def facts(self) -> ImageFacts: ...

    def read(self, level: int, box: Box) -> npt.NDArray[np.generic]:
        """Pixels `(y, x, band)` of a box that lies inside the level."""
        ...

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels `(y, x)` of such a box that hold data; None where the file doesn't say."""
        ...

    def chunk_px(self, level: int) -> tuple[int, int]:
        """Height and width of a piece that is cheap to read on its own."""
        ...

    def close(self) -> None: ...


def known_scales(scales: list[Scale]) -> tuple[Scale, ...]:
    """Scale and offset of bands; empty where they change nothing, or are such that no value is left."""
    is_sound = all(math.isfinite(scale) and math.isfinite(offset) and scale != 0 for scale, offset in scales)
    return tuple(scales) if is_sound and any(each != (1.0, 0.0) for each in scales) else ()


def make_levels(shapes: list[tuple[int, int]], pixel_size: PixelSize | None) -> tuple[Level, ...]:
    """Levels for pyramid shapes `(height, width)`, largest first, from level 0's pixel size."""
    height, width = shapes[0]
    levels: list[Level] = []
    for index, (h, w) in enumerate(shapes):
        fy, fx = height / h, width / w
        size = PixelSize(pixel_size.y * fy, pixel_size.x * fx, pixel_size.unit) if pixel_size else None
        levels.append(Level(index, h, w, (fy + fx) / 2, size))
    return tuple(levels)
