"""Placement of a mask: on the pixels of its image's level 0, and on the earth."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tiling.geometry import OutputGrid, PixelSize
from tiling.source import ImageSource
from tiling.sources.facts import Georeference

Affine = tuple[float, float, float, float, float, float]
"""`(a, b, c, d, e, f)` with `x' = a*x + b*y + c` and `y' = d*x + e*y + f`; x right, y down, from a pixel's corner."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The way from the corner of the mask's first pixel to other coordinates.

    Attributes:
        to_image: to pixels of the image's level 0.
        georeference: where that level lies on the earth; None where nothing says so.
        pixel_size: of one mask pixel.
        bounds_px: the pixel of the image's level 0 that QuPath calls the first, y before x.
    """

    to_image: Affine
    georeference: Georeference | None = None
    pixel_size: PixelSize | None = None
    bounds_px: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls,
        source: ImageSource,
        level: int,
        grid: OutputGrid,
        *,
        step: tuple[float, float] = (1.0, 1.0),
        origin: tuple[int, int] = (0, 0),
    ) -> Placement:
        """Of a mask on that grid over a level, which covers all of level 0, as GDAL's overviews do.

        Args:
            source: the image.
            level: that was segmented.
            grid: how the mask's pixels lie on those that were segmented.
            step: sides of what was segmented as one pixel, in the level's pixels, y before x.
            origin: the first of those pixels that was segmented, y before x.
        """
        whole, seen = source.levels[0], source.levels[level]
        # Fractions: where the level is level 0, and the grid its own, these are exactly 1.
        y = Fraction(whole.height, seen.height) * Fraction(step[0])
        x = Fraction(whole.width, seen.width) * Fraction(step[1])
        size = seen.pixel_size
        if size is not None:
            size = PixelSize(size.y * step[0], size.x * step[1], size.unit).on(grid)
        tall, wide = float(y / grid.scale[0]), float(x / grid.scale[1])
        to_image = wide, 0.0, float(x * origin[1]), 0.0, tall, float(y * origin[0])
        return cls(to_image, source.georeference, size, source.bounds_px)

    @property
    def to_map(self) -> Affine | None:
        """To map coordinates; None without a geotransform."""
        if self.georeference is None or self.georeference.affine is None:
            return None
        return composed(self.georeference.affine, self.to_image)

    @property
    def is_image(self) -> bool:
        """True if the mask's pixels are those of level 0."""
        return self.to_image == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    @property
    def pixel_area(self) -> float | None:
        """Of one mask pixel in the square of `pixel_size.unit`, skewed pixels included; None where it isn't known."""
        if self.pixel_size is None or self.pixel_size.unit == "degree":
            return None
        rectangle = self.pixel_size.y * self.pixel_size.x
        affine = self.to_map
        if affine is None:
            return rectangle
        a, b, _, d, e, _ = affine
        return rectangle * abs(a * e - b * d) / (np.hypot(a, d) * np.hypot(b, e))


def composed(outer: Affine, inner: Affine) -> Affine:
    """First `inner`, then `outer`."""
    a, b, c, d, e, f = outer
    p, q, r, s, t, u = inner
    return a * p + b * s, a * q + b * t, a * r + b * u + c, d * p + e * s, d * q + e * t, d * r + e * u + f


def moved(affine: Affine, points_xy: NDArray[np.number]) -> NDArray[np.float64]:
    """Points `(n, 2)` of x and y through an affine."""
    a, b, c, d, e, f = affine
    x, y = points_xy[:, 0].astype(np.float64), points_xy[:, 1].astype(np.float64)
    return np.column_stack([a * x + b * y + c, d * x + e * y + f])


def flips(affine: Affine) -> bool:
    """True if the affine turns what runs clockwise into what runs anticlockwise."""
    a, b, _, d, e, _ = affine
    return a * e - b * d < 0
