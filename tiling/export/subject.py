"""Subject of an export: what decides whether a format can express it, known before a run begins."""

from __future__ import annotations

from dataclasses import dataclass

from tiling.errors import ExportError
from tiling.georeference.placement import Placement


@dataclass(frozen=True, slots=True)
class Subject:
    """A mask that is to be exported, finished or not.

    Attributes:
        image: what it is a mask of, for messages.
        placement: where it lies.
        shape: its height and width.
        probabilities: whether the run keeps them.
        objects: whether the run's objects are numbered.
    """

    image: str
    placement: Placement
    shape: tuple[int, int]
    probabilities: bool
    objects: bool = True

    def expect_map(self, name: str, instead: str) -> None:
        """Refuse an image that lies nowhere on the earth.

        Raises:
            ExportError: it has no geotransform.
        """
        if self.placement.to_map is not None:
            return
        georeference = self.placement.georeference
        why = "only ground control points" if georeference and georeference.tiepoints else "no geotransform"
        raise ExportError(
            f"{name} holds map coordinates and {self.image} has {why}: nothing says where its pixels lie on the earth; "
            f"georeference the image, or use {instead}"
        )

    def expect_probabilities(self) -> None:
        """Refuse a run without them.

        Raises:
            ExportError: it doesn't keep them.
        """
        if not self.probabilities:
            raise ExportError(
                f"the run of {self.image} keeps no probabilities: there is nothing to export; segment with "
                f"--probabilities into another --out"
            )

    def expect_objects(self, name: str) -> None:
        """Refuse a run whose objects aren't numbered.

        Raises:
            ExportError: nothing says which pixels are one object.
        """
        if not self.objects:
            raise ExportError(
                f"{name} holds a row for each object, and the run of {self.image} numbers none: segment with --objects "
                f"auto; the same command again numbers those of a finished run"
            )
