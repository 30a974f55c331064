"""Request for the pixels of an image, and the requirements of the model that is to see them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tiling.view import View

Um = tuple[float, float]
"""Size of a pixel along y and x, in µm."""


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """A person's request for pixels; all of it may be left open.

    Attributes:
        level: the pyramid level whose pixels are taken as they are.
        pixel_um: the pixel size to segment at.
        image_um: what a pixel of the image's level 0 measures, where the image doesn't say or is wrong.
        as_is: whether the pixels are taken as they are, whatever they measure.
        bands, region, normalise: as typed.
        scaled: whether values are taken in the bands' own units.
        crs, resampling: of a scene's grid, as typed.
        damaged: `mask` takes pixels of segments that don't decode for no data; without it, what needs them fails.
    """

    level: int | None = None
    pixel_um: float | None = None
    image_um: float | None = None
    as_is: bool = False
    bands: str | None = None
    scaled: bool = False
    z: int = 0
    t: int = 0
    series: str | None = None
    region: str | None = None
    normalise: str | None = None
    crs: str | None = None
    resampling: str = "auto"
    damaged: str | None = None

    @property
    def first_view(self) -> View:
        """All of the image that is meant, as it is."""
        return View(z=self.z, t=self.t, series=self.series, crs=self.crs, resampling=self.resampling)

    def as_given(self) -> dict[str, str]:
        """The request as it was given, the level apart; options left open are left out."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "level"}
        return {name: str(value) for name, value in given.items() if value not in (None, False, 0, "auto")}


@dataclass(frozen=True, slots=True)
class ModelRequirements:
    """Requirements of a model: one pixel size, or between which ones it can be right; its bands, where known."""

    name: str
    pixel_um: float | None
    dtype: str
    plausible_um: Um | None = None
    bands: tuple[str, ...] = ()
