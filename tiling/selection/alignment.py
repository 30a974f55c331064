"""Alignment of a raster of labels with its image, by the georeference of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiling.errors import ExportError, SourceError
from tiling.geometry import IMAGE_GRID, Box
from tiling.georeference.crs import crs_of
from tiling.georeference.placement import Affine, Placement, moved
from tiling.source import ImageSource

TOLERANCE_PX = 0.1
"""How far pixels of the two may lie from each other: places are written with rounded numbers."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Map from boxes of an image to boxes of its labels.

    Attributes:
        first: the labels' pixel that lies on the image's first one, y before x.
        steps: 1, or -1 where the labels run the other way, y before x.
    """

    first: tuple[int, int] = (0, 0)
    steps: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, image: ImageSource, level: int, labels: ImageSource, labels_level: int) -> Alignment:
        """Of labels on a level of an image: as they stand where one of both names no place.

        Raises:
            SourceError: they lie elsewhere, in another CRS, or cover a part of the image alone.
        """
        whole, theirs = image.levels[level], labels.levels[labels_level]
        on_map, labels_on_map = _to_map(image, level), _to_map(labels, labels_level)
        if on_map is None or labels_on_map is None:
            if (whole.height, whole.width) != (theirs.height, theirs.width):
                raise SourceError(
                    f"labels {labels.path} are {theirs.height} x {theirs.width} px, {image.path} at level {level} is "
                    f"{whole.height} x {whole.width}: they must be of one size; export the labels again"
                )
            return cls()
        expect_one_crs(image, labels, "labels")
        corners = np.array([[0.0, 0.0], [whole.width, 0.0], [0.0, whole.height], [whole.width, whole.height]])
        seen = from_map(labels_on_map, moved(on_map, corners))
        nearest = np.rint(seen)
        (x0, y0), (x1, y1) = nearest[0].astype(int), nearest[3].astype(int)
        straight = nearest[1].tolist() == [x1, y0] and nearest[2].tolist() == [x0, y1]
        if (
            not straight
            or np.abs(seen - nearest).max() > TOLERANCE_PX
            or (abs(y1 - y0), abs(x1 - x0)) != (whole.height, whole.width)
            or min(x0, x1, y0, y1) < 0
            or max(x0, x1) > theirs.width
            or max(y0, y1) > theirs.height
        ):
            raise SourceError(
                f"labels {labels.path} ({said(labels, labels_level)}) don't lie on {image.path} "
                f"({said(image, level)}): its pixels would get labels of other places; warp the labels to the grid of "
                f"the image, all of which they must cover"
            )
        steps = 1 if y1 > y0 else -1, 1 if x1 > x0 else -1
        return cls((int(y0) - (steps[0] < 0), int(x0) - (steps[1] < 0)), steps)

    def box(self, box: Box) -> Box:
        """The labels' box that lies on one of the image."""
        (y, x), (down, right) = self.first, self.steps
        y0, y1 = sorted((y + down * box.y0, y + down * (box.y1 - 1)))
        x0, x1 = sorted((x + right * box.x0, x + right * (box.x1 - 1)))
        return Box(y0, x0, y1 + 1, x1 + 1)

    def turned(self, labels_HW: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Labels of such a box the way round that the image is."""
        return np.ascontiguousarray(labels_HW[:: self.steps[0], :: self.steps[1]])


def expect_one_crs(image: ImageSource, other: ImageSource, what: str) -> None:
    """Raise SourceError where both name a CRS, and not the same one."""
    theirs, ours = _crs(other), _crs(image)
    if theirs is not None and ours is not None and theirs != ours:
        raise SourceError(
            f"{what} {other.path} are in {theirs.to_string()[:80]}, {image.path} is in {ours.to_string()[:80]}: they "
            f"would lie elsewhere; warp them to the grid of the image"
        )


def said(source: ImageSource, level: int) -> str:
    """Description of a level's place and size, for messages."""
    whole, affine = source.levels[level], _to_map(source, level)
    assert affine is not None
    a, b, c, d, e, f = affine
    turned = f", turned by {b:.6g} and {d:.6g}" if b or d else ""
    return f"{whole.height} x {whole.width} px of {a:.6g} x {e:.6g}{turned} from {c:.10g}, {f:.10g}"


def from_map(affine: Affine, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Map coordinates as pixels, x before y; SourceError where the geotransform can't be inverted."""
    a, b, c, d, e, f = affine
    if a * e == b * d:
        raise SourceError("a geotransform that can't be inverted leads nowhere; georeference the file again")
    return (points - (c, f)) @ np.linalg.inv(np.array([[a, b], [d, e]])).T


def _to_map(source: ImageSource, level: int) -> Affine | None:
    return Placement.of(source, level, IMAGE_GRID).to_map


def _crs(source: ImageSource) -> Any:
    try:
        return None if source.georeference is None else crs_of(source.georeference)
    except ExportError:
        return None
