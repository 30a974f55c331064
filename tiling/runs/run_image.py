"""Images of a run with their pyramids: what the mask and the probabilities have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import ClassVar, Self

import zarr

from tiling.geometry import Box, PixelSize
from tiling.plan import TilePlan
from tiling.runs.ome_metadata import LabelClass
from tiling.runs.pyramid import Pixels, Pyramid
from tiling.runs.pyramid_metadata import PyramidMetadata, open_group
from tiling.storage.place import Place


class RunImage(ABC):
    """An image whose level 0 is written tile by tile, and its coarser levels from that."""

    what: ClassVar[str]
    """Its name in messages."""

    synced: ClassVar[bool] = True
    """Whether each file waits for the disk; else whoever makes the image syncs all of it before anything names it."""

    def __init__(self, path: Place, group: zarr.Group) -> None:
        self.path = path
        self.pyramid = Pyramid(path, group, self.halve)

    @staticmethod
    @abstractmethod
    def halve(pixels: Pixels) -> Pixels:
        """A level's pixels from those of the level below, along the last two axes."""

    @staticmethod
    @abstractmethod
    def metadata(
        plan: TilePlan, classes: Sequence[LabelClass], pixel_size: PixelSize | None, corner_px: tuple[float, float]
    ) -> PyramidMetadata:
        """The metadata as it has to be."""

    @classmethod
    def create(
        cls,
        path: Place,
        plan: TilePlan,
        classes: Sequence[LabelClass],
        pixel_size: PixelSize | None,
        on_missing: Callable[[Self], None] | None = None,
        corner_px: tuple[float, float] = (0, 0),
    ) -> Self:
        """Make the image, with nothing written yet; open it where it is there already.

        Args:
            pixel_size: the segmented image's; this one's follows from the plan's grid.
            on_missing: hears of the image before metadata is made that isn't there, for shards may have gone with it.
        """
        blueprint = _planned(cls, plan, tuple(classes), pixel_size, corner_px)

        def tell(group: zarr.Group) -> None:
            if on_missing is not None:
                on_missing(cls(path, group))

        blueprint.complete(path, tell, synced=cls.synced)
        return cls.open(path)

    @classmethod
    def open(cls, path: Place, *, read_only: bool = False) -> Self:
        """Open the image; RunError where there is none."""
        return cls(path, open_group(path, cls.what, read_only=read_only))

    def sweep(self) -> None:
        """Remove what writers that were killed have left; only when none writes."""
        self.pyramid.sweep()

    def build_pyramid(
        self, changed: Iterable[Box] | None = None, written: Callable[[int, Box], bool] = lambda level, box: False
    ) -> None:
        """Compute the coarser levels from level 0; with `changed`, only the shards above those boxes.

        Shards that are `written` already are left as they are.
        """
        self.pyramid.build(changed, written=written)


@lru_cache(maxsize=64)
def _planned(
    kind: type[RunImage],
    plan: TilePlan,
    classes: tuple[LabelClass, ...],
    pixel_size: PixelSize | None,
    corner_px: tuple[float, float],
) -> PyramidMetadata:
    """Metadata of images that are alike, as many of an archive are: Zarr takes some milliseconds to make it."""
    return kind.metadata(plan, classes, pixel_size, corner_px)
