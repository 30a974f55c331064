"""Methods by which bands of a scene are resampled: asked for, or chosen by what kind a band is.

Numbers that name classes are never mixed: such a band is resampled to the nearest. Others are bilinear, and averages
where a pixel of the grid covers more than one of the file's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from tiling.errors import SourceError

Method = Literal["nearest", "bilinear", "average"]

AUTO = "auto"
METHODS = ("nearest", "bilinear", "average")
FORM = r"^(auto|([^,=]+=)?(nearest|bilinear|average))(,[^,=]+=(nearest|bilinear|average))*$"
"""A method for all bands, or for some by name, after the one for all if there is one."""

COVERED = 1 / 0.95
"""Pixels of a file, along an axis, from which on one of the grid covers several: GDAL's warper widens filters there."""

_CLASSES = re.compile(r"scl|fmask|msk_\w+|qa(_?\w+)?|\w+_qa|(\w+[_-])?(mask|classes|labels|landcover)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Methods:
    """Methods that were asked for: of all bands, None where their kind decides, and of single ones by name."""

    every: Method | None = None
    named: Mapping[str, Method] = field(default_factory=dict[str, Method])

    @classmethod
    def parse(cls, text: str) -> Methods:
        """Methods as typed: `average`, `scl=nearest`, `bilinear,scl=nearest`.

        Raises:
            SourceError: it is none of them.
        """
        if re.fullmatch(FORM, text) is None:
            raise SourceError(
                f"--resampling {text!r} names no method; give {', '.join(METHODS)} or auto, or methods of bands as "
                "bilinear,scl=nearest"
            )
        every: Method | None = None
        named: dict[str, Method] = {}
        for each in text.split(","):
            band, _, method = each.rpartition("=")
            if band:
                named[band] = cast("Method", method)
            elif method != AUTO:
                every = cast("Method", method)
        return cls(every, named)

    def expect_bands(self, names: tuple[str, ...]) -> None:
        """Raise `SourceError` where one is for a band that isn't there."""
        for band in self.named:
            if band not in names:
                raise SourceError(f"--resampling names the band {band!r}; the scene has {', '.join(names[:20])}")

    def of(self, band: str, *, holds_classes: bool) -> Method | None:
        """The method of a band; None where bilinear or average is chosen by the size of pixels."""
        if band in self.named:
            return self.named[band]
        if self.every is None and (holds_classes or _CLASSES.fullmatch(band)):
            return "nearest"
        return self.every


def method_at(asked: Method | None, pixel: tuple[float, float], name: str) -> Method:
    """The method of a file of which a pixel of the grid covers `pixel`, y before x.

    Raises:
        SourceError: bilinear would skip some of its pixels.
    """
    is_covered = max(pixel) > COVERED
    if asked == "bilinear" and is_covered:
        raise SourceError(
            f"{name}: a pixel of the grid covers {pixel[0]:.3g} x {pixel[1]:.3g} of its pixels, and bilinear looks at "
            "2 x 2, so that some would count nowhere; give --resampling average, or leave it out"
        )
    return asked or ("average" if is_covered else "bilinear")
