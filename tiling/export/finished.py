"""A finished run as exporters see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiling.export.subject import Subject
from tiling.geometry import Unit
from tiling.georeference.ground_areas import Ground
from tiling.georeference.placement import Placement
from tiling.objects.image import ObjectImage, open_objects
from tiling.objects.record import Built
from tiling.runs.counts import ground_areas
from tiling.runs.label_counts import label_counts
from tiling.runs.ledger import LedgerState
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED, Mask
from tiling.runs.ome_metadata import LabelClass
from tiling.runs.uncomputed import NOT_PREDICTED_NAME
from tiling.shapes import Shapes

if TYPE_CHECKING:
    from tiling.export.object_table import ObjectTable
    from tiling.runs.probabilities import Probabilities
    from tiling.runs.run import Run
    from tiling.source import ImageSource

NOT_PREDICTED_CLASS = LabelClass(NOT_PREDICTED_NAME, "#808080")


@dataclass(slots=True)
class Tally:
    """Objects and their pixels per label.

    Attributes:
        objects: how many there are.
        pixels: of them.
        areas: of them, where they are known.
        of_mask: pixels of each label in the mask, where objects are numbered: these needn't cover their class.
    """

    objects: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    areas: NDArray[np.float64] = field(default_factory=lambda: np.zeros(256))
    of_mask: NDArray[np.int64] | None = None

    def see(self, labels: NDArray[np.uint8]) -> None:
        """Count the pixels of rows of the mask."""
        assert self.of_mask is not None
        self.of_mask += label_counts(labels)

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Pixels of each label in the mask."""
        return self.pixels if self.of_mask is None else self.of_mask

    def add(self, shapes: Shapes, areas: NDArray[np.float64] | None = None) -> None:
        """Count objects; `areas` are theirs, where one is known."""
        if areas is not None:
            np.add.at(self.areas, shapes.labels, areas)
        self.objects += np.bincount(shapes.labels, minlength=256)
        np.add.at(self.pixels, shapes.labels, shapes.pixels)


@dataclass(frozen=True)
class Finished:
    """Run that all formats are written from.

    Attributes:
        run: the run.
        state: its folded ledger.
        placement: where its mask lies.
        digest: of what the mask holds.
        source: its image as it was segmented, open.
        shapes: its objects, as often as wanted; empty where no format asks for them.
        tally: their numbers.
        built: what the ledger says of numbered objects; None where the run has none of this mask.
        threads: that one writer may use.
        ground_areas: of each numbered object by its number; None where the map's plane shows areas, or nothing does.
        measured: what was measured of each numbered object; None where there are none, or no format asks for it.
    """

    run: Run
    state: LedgerState
    placement: Placement
    digest: str
    source: ImageSource
    shapes: Iterable[Shapes] = ()
    tally: Tally = field(default_factory=Tally)
    built: Built | None = None
    threads: int = 2
    ground_areas: NDArray[np.float64] | None = None
    measured: ObjectTable | None = None

    @cached_property
    def mask(self) -> Mask:
        return self.run.open_mask(read_only=True)

    @cached_property
    def probabilities(self) -> Probabilities | None:
        return self.run.open_probabilities(read_only=True)

    @property
    def table(self) -> ObjectTable:
        """The objects' table, of a format that is made of nothing else."""
        assert self.measured is not None
        return self.measured

    @cached_property
    def objects(self) -> ObjectImage | None:
        """The numbered objects; None where the run has none of this mask."""
        return open_objects(self.run) if self.built is not None else None

    @cached_property
    def classes(self) -> dict[int, LabelClass]:
        """Meaning of every label but the background, 'not predicted' included."""
        named = dict(enumerate(self.run.classes))
        del named[BACKGROUND]
        return {**named, NOT_PREDICTED: NOT_PREDICTED_CLASS}

    @cached_property
    def ground(self) -> Ground | None:
        """The way to areas on the ellipsoid, where the map's own plane doesn't show them."""
        return Ground.of(self.placement, self.run.plan.mask.shape)

    @cached_property
    def ground_total(self) -> float:
        """Of the whole mask on the ground."""
        return self.ground.total if self.ground is not None else 0.0

    @cached_property
    def label_areas(self) -> NDArray[np.float64]:
        """Of all pixels of each label but the background's on the ground, 'not predicted' included."""
        if self.ground is None or self.tally.of_mask is None:
            return self.tally.areas
        # Numbered objects needn't cover their class, nor be of it alone.
        areas = ground_areas(self.mask, self.ground, 0)
        areas[BACKGROUND], areas[NOT_PREDICTED] = 0, self.tally.areas[NOT_PREDICTED]
        return areas

    @property
    def has_areas(self) -> bool:
        """True if an object's area is known."""
        return self.ground is not None or self.placement.pixel_area is not None

    def areas(self, shapes: Shapes) -> NDArray[np.float64] | None:
        """Of each object in the square of `area_unit`, on the ground; None where it isn't known."""
        plane = self.placement.pixel_area
        if self.ground is None:
            return None if plane is None else np.asarray(shapes.pixels * plane, np.float64)
        found = self.ground.of_shapes(shapes)
        missing = np.logical_not(np.isfinite(found))
        if plane is not None:
            found[missing] = (shapes.pixels * plane)[missing]
        return found

    @property
    def area_unit(self) -> Unit | None:
        size = self.placement.pixel_size
        return "m" if self.ground is not None else size.unit if size is not None else None

    @property
    def area_name(self) -> str:
        """Name of an object's area, which says its unit."""
        return f"area_{self.area_unit}2" if self.area_unit is not None else "area"

    @property
    def subject(self) -> Subject:
        """Subject that formats are held against before anything is written."""
        card = self.run.card
        shape, numbered = self.run.plan.mask.shape, self.built is not None
        return Subject(card.image.path, self.placement, shape, bool(card.probabilities), numbered)
