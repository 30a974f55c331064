"""View of an image: which pixels are segmented, and as what; frozen, and recorded in the run's card.

A view is taken of one pyramid level: resampled to another pixel size, cut to a region, narrowed to some bands, at one
z and t, with values stretched in one way for the whole image. What it gives depends on a pixel's absolute position
alone, never on the tile that it is read for.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from tiling.geometry import Box, PixelSize, Unit

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Index = Annotated[int, Field(ge=0)]

_TOLERANCE_PX = 1e-6  # by which a side may be longer than a whole number of pixels for the sake of rounding


class _Noun(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stretch(_Noun):
    """One range of values per band that becomes the whole range of `dtype`, of float32 0 to 1; the same everywhere."""

    low: tuple[FiniteFloat, ...]
    high: tuple[FiniteFloat, ...]
    dtype: Literal["uint8", "uint16", "float32"]

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Stretch:
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"{len(self.low)} lows and {len(self.high)} highs: give one of each per band")
        if any(high <= low for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a range from {self.low} to {self.high} is empty; give LOW below HIGH")
        return self


class Formula(_Noun):
    """A band that is computed: its name, and arithmetic on bands by number, `(b4 - b1) / (b4 + b1)`."""

    name: str
    text: str


class View(_Noun):
    """Pixels of an image that are read.

    Attributes:
        level: the pyramid level that pixels are read from.
        downsample: sides of that level's pixels in pixels of level 0, y before x.
        step: sides of the view's pixels in pixels of that level; 1 takes them as they are.
        region: `y0, x0, y1, x1` of what is taken, in pixels of the resampled level; None takes all of it.
        bands: numbers of the bands from 0, in the view's order; None takes all of them.
        formulas: bands that are computed of the file's, in place of `bands`.
        z: the focal plane, from 0.
        t: the point in time, from 0.
        series: which of a file's images, by number from 0, or as a person names it; None leaves it to the file.
        stretch: how values become those of the model; None takes them as they are.
        pixel_size: what a pixel of level 0 measures where the user said so: y, x, unit.
        outline: SHA-256 of the polygons outside of which tiles are skipped.
        damaged: level, plane and number of segments of the file that don't decode, and whose pixels hold no data.
        crs: the CRS, by its code, on whose grid the files of a scene are laid; None leaves it to them.
        resampling: how they are laid there, as typed (`tiling.sources.scene.methods`).
    """

    level: Index = 0
    downsample: tuple[Positive, Positive] = (1.0, 1.0)
    step: tuple[Positive, Positive] = (1.0, 1.0)
    region: tuple[Index, Index, Index, Index] | None = None
    bands: tuple[Index, ...] | None = None
    formulas: tuple[Formula, ...] = ()
    z: Index = 0
    t: Index = 0
    series: Index | str | None = None
    stretch: Stretch | None = None
    pixel_size: tuple[Positive, Positive, Unit] | None = None
    outline: str | None = None
    damaged: tuple[tuple[Index, Index, Index], ...] = ()
    crs: str | None = None
    resampling: str = "auto"

    @model_validator(mode="after")
    def _region_has_pixels(self) -> View:
        if self.region is not None:
            y0, x0, y1, x1 = self.region
            if y1 <= y0 or x1 <= x0:
                raise ValueError(f"region {self.region} holds no pixel; give y0 < y1 and x0 < x1")
        if self.formulas and self.bands is not None:
            raise ValueError("bands are taken or computed, not both; leave out one of them")
        return self

    @property
    def is_plain(self) -> bool:
        """True if it is nothing but a level, as it is."""
        return self == View(level=self.level, downsample=self.downsample)

    @property
    def image(self) -> View:
        """All of the image that it is of, and on the same grid, as it is."""
        return View(series=self.series, crs=self.crs, resampling=self.resampling)

    @property
    def resamples(self) -> bool:
        return self.step != (1.0, 1.0)

    @property
    def box(self) -> Box | None:
        return None if self.region is None else Box(*self.region)

    @property
    def pixel_px(self) -> tuple[float, float]:
        """Sides of the view's pixels in pixels of level 0, y before x."""
        return self.step[0] * self.downsample[0], self.step[1] * self.downsample[1]

    @property
    def corner_px(self) -> tuple[float, float]:
        """Corner of the view's first pixel, in pixels of level 0, y before x."""
        y0, x0 = self.region[:2] if self.region is not None else (0, 0)
        return y0 * self.pixel_px[0], x0 * self.pixel_px[1]

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """`(a, b, c, d, e, f)` with `x' = a*x + b*y + c` and `y' = d*x + e*y + f`, to pixels of the file's level 0.

        Both from the corner of the first pixel.
        """
        return self.pixel_px[1], 0.0, self.corner_px[1], 0.0, self.pixel_px[0], self.corner_px[0]

    @property
    def stated_size(self) -> PixelSize | None:
        return None if self.pixel_size is None else PixelSize(*self.pixel_size)

    def whole(self, height: int, width: int) -> Box:
        """Box of a whole level of that size in the view's pixels, partly covered pixels included."""
        return Box(0, 0, _pixels(height, self.step[0]), _pixels(width, self.step[1]))

    def __str__(self) -> str:
        """One line for people, of what differs from a level as it is."""
        parts = [f"level {self.level}"]
        if self.resamples:
            parts.append(f"one pixel for {self.step[0]:.6g} x {self.step[1]:.6g} of it")
        if self.crs is not None:
            parts.append(f"on a grid in {self.crs}")
        if self.resampling != "auto":
            parts.append(f"resampling {self.resampling}")
        if self.box is not None:
            parts.append(f"region {self.box}")
        if self.bands is not None:
            parts.append(f"bands {', '.join(str(band + 1) for band in self.bands)}")
        if self.formulas:
            parts.append(f"computed {', '.join(each.name for each in self.formulas)}")
        if self.z or self.t:
            parts.append(f"z {self.z}, t {self.t}")
        if self.series is not None:
            parts.append(f"series {self.series}")
        if self.stretch is not None:
            ranges = ", ".join(f"{a:.6g} to {b:.6g}" for a, b in zip(self.stretch.low, self.stretch.high, strict=True))
            parts.append(f"values {ranges} as {self.stretch.dtype}")
        if self.pixel_size is not None:
            y, x, unit = self.pixel_size
            parts.append(f"pixels said to be {y:.6g} x {x:.6g} {unit}")
        if self.damaged:
            parts.append(f"without {len(self.damaged)} damaged segment(s)")
        if self.outline is not None:
            parts.append(f"polygons {self.outline[:12]}")
        return "; ".join(parts)


def _pixels(length: int, step: float) -> int:
    return max(1, math.ceil(length / step - _TOLERANCE_PX))
