"""Placement of a run's mask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tiling.errors import ExportError
from tiling.georeference.placement import Placement, composed
from tiling.source import ImageSource

if TYPE_CHECKING:
    from tiling.runs.run import Run


def placement_of(run: Run, source: ImageSource) -> Placement:
    """Of a run's mask.

    Raises:
        ExportError: the image is no longer the one that the run segmented.
    """
    image = run.card.image
    level = source.levels[image.level] if image.level < len(source.levels) else None
    if level is None or (level.height, level.width) != tuple(image.extent):
        raise ExportError(
            f"image {source.path} is no longer the one that {run.path} segmented (level {image.level} of "
            f"{image.extent[0]} x {image.extent[1]} px): exports would lie elsewhere; restore the image"
        )
    placement = Placement.of(source, image.level, run.plan.grid)
    if image.view is None:
        return placement
    # The view places itself; what people open lies on the file's own pixels.
    with source.viewed(image.view.image) as file:
        return replace(
            placement,
            to_image=composed(image.view.affine, placement.to_image),
            georeference=file.georeference,
        )
