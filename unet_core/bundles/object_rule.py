"""Rule by which a model's classes become objects: what hangs together, what is only a border, what is too small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

MOST_RADIUS_PX = 64
MOST_PIXELS, MOST_UM2 = 2**48, 1e15
"""Of an object's least size: more than any image has, and than numbers of pixels can be."""

ClassName = Annotated[str, Field(min_length=1)]


class ObjectRule(BaseModel):
    """The rule of a card, its classes by name. docs/objects.md defines it on the whole image.

    Attributes:
        rule: `components`: what hangs together is one object. `border`: the same of every class but one, whose pixels
            go to the nearest object. `distance`: seeds at the maxima of a channel, grown over their class.
        radius_px: how far seeds grow, in pixels of the mask.
        border: the class of borders, of `border`.
        channel: the class whose probability is the height, of `distance`.
        level: the probability from which on a maximum is a seed, of `distance`.
        spacing_px: no seed lies nearer than this to a greater height, of `distance`.
        least_px: by class, the least pixels of an object; what has fewer is a speck.
        least_um2: the same as an area, which counts in place of it where a pixel's size is known.
        fill_holes: classes whose objects have no holes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: Literal["components", "border", "distance"] = "components"
    radius_px: int = Field(default=0, ge=0, le=MOST_RADIUS_PX)
    border: ClassName | None = None
    channel: ClassName | None = None
    level: float = Field(default=0.5, gt=0, le=1)
    spacing_px: int = Field(default=1, ge=1, le=MOST_RADIUS_PX)
    least_px: dict[ClassName, Annotated[PositiveInt, Field(le=MOST_PIXELS)]] = Field(default_factory=dict)
    least_um2: dict[ClassName, Annotated[PositiveFloat, Field(le=MOST_UM2)]] = Field(default_factory=dict)
    fill_holes: tuple[ClassName, ...] = ()

    @property
    def is_plain(self) -> bool:
        """True if the objects are the mask's own areas, all of them."""
        return self == ObjectRule()

    @model_validator(mode="after")
    def _says_what_its_rule_needs(self) -> ObjectRule:
        wanted = {"components": (), "border": ("border", "radius_px"), "distance": ("channel", "radius_px")}[self.rule]
        for name in wanted:
            if not getattr(self, name):
                raise ValueError(f"objects.rule {self.rule!r} needs objects.{name}: without it no seed grows; give it")
        of_seeds = ("level", "spacing_px") if self.rule != "distance" else ()
        unset = {name: type(self).model_fields[name].default for name in ("border", "channel", "radius_px", *of_seeds)}
        for name, default in unset.items():
            if name not in wanted and getattr(self, name) not in (default, None, ""):
                raise ValueError(f"objects.{name} means nothing under the rule {self.rule!r}; leave it out")
        sized = {"least_px": self.least_px, "least_um2": self.least_um2, "fill_holes": self.fill_holes}
        for name, classes in sized.items():
            if self.border is not None and self.border in classes:
                raise ValueError(
                    f"objects.{name} names {self.border!r}, which is no object's but the border; leave it out"
                )
        return self

    def as_components(self) -> ObjectRule:
        """The areas of each class, of the same least size and filled alike."""
        return ObjectRule(least_px=self.least_px, least_um2=self.least_um2, fill_holes=self.fill_holes)

    def least_pixels(self, pixel_um2: float | None) -> dict[str, int]:
        """By class, the least pixels of an object, of pixels of that area; None where nobody knows it."""
        if pixel_um2 is None:
            return dict(self.least_px)
        # An area of whole pixels is one of them, whatever the last bit of a pixel's area says.
        areas = {name: max(1, math.ceil(round(area / pixel_um2, 6))) for name, area in self.least_um2.items()}
        return self.least_px | areas

    def expect_classes(self, names: Sequence[str]) -> None:
        """Refuse names that are none of the model's classes.

        Raises:
            ValueError: the rule would look for what is never there.
        """
        named = [*([self.border] if self.border else []), *([self.channel] if self.channel else [])]
        for name in (*named, *self.least_px, *self.least_um2, *self.fill_holes):
            if name not in names[1:]:
                raise ValueError(f"objects names the class {name!r}, and the classes are {', '.join(names[1:])}")
        if self.border is not None and len(names) < 3:
            raise ValueError("objects.rule 'border' needs a class beside the border's, for the seeds")
