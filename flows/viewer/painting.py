"""Squares of an image and of its mask as files that a browser shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.reporting.palette import VERMILION
from tiling.export.overlay import borders
from tiling.runs.mask import NOT_PREDICTED

JPEG_QUALITY = 88
HATCH_PERIOD_PX = 16  # divides a square's side, so that the hatching goes on across squares
HATCH_LINE_PX = 5
THUMBNAIL_PX = 320

Style = Literal["fill", "outline"]


@dataclass(frozen=True, slots=True)
class Paint:
    """Style in which labels are shown.

    Attributes:
        colors: one `#rrggbb` per label of the model.
        shown: the labels that are painted; the others are transparent.
        style: whole areas, or only their outlines.
    """

    colors: Sequence[str]
    shown: frozenset[int]
    style: Style = "fill"

    @property
    def margin(self) -> int:
        """Labels that are needed around a square."""
        return 1 if self.style == "outline" else 0


def jpeg(pixels_HW3: NDArray[np.uint8]) -> bytes:
    """Pixels `(y, x, 3)` as JPEG."""
    encoded = BytesIO()
    Image.fromarray(pixels_HW3).save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return encoded.getvalue()


def paint(labels: NDArray[np.uint8], how: Paint, numbers: NDArray[np.int32] | None = None) -> bytes:
    """Labels `(y, x)`, with `how.margin` more on each side, as PNG with transparency; not predicted is hatched.

    Where the objects' `numbers` are given, outlines are theirs: objects that touch have one each.
    """
    inner = labels[how.margin : labels.shape[0] - how.margin, how.margin : labels.shape[1] - how.margin]
    visible = np.zeros(256, np.bool_)
    visible[[*how.shown - {0}]] = True
    drawn = np.where(visible[inner], inner, np.uint8(0))
    missing = drawn == NOT_PREDICTED
    if how.style == "outline":
        drawn[~missing & ~borders(labels if numbers is None else numbers)] = 0
    drawn[missing & ~_hatching(inner.shape)] = 0
    picture = Image.fromarray(drawn, "P")
    picture.putpalette(_palette(how.colors))
    encoded = BytesIO()
    picture.save(encoded, "PNG", transparency=bytes([0] + [255] * 255), compress_level=1)
    return encoded.getvalue()


def thumbnail(picture: bytes) -> bytes:
    """A picture at the size of a table's row, as JPEG.

    Raises:
        OSError, ValueError: no picture, or one of a size that is no overlay's.
    """
    with Image.open(BytesIO(picture)) as opened:
        opened.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
        small = opened.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return jpeg(np.asarray(small))


def _hatching(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    return (rows + cols) % HATCH_PERIOD_PX < HATCH_LINE_PX


def _palette(colors: Sequence[str]) -> bytes:
    palette = np.full((256, 3), 128, np.uint8)
    for label, color in [*enumerate(colors), (NOT_PREDICTED, VERMILION)]:
        palette[label] = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return palette.tobytes()
