"""Columns of the table of objects: what each figure is called, in which unit, and where an object lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiling.escaping import plain
from tiling.geometry import PixelSize
from tiling.georeference.placement import Placement, moved
from tiling.objects.measure import Measured

if TYPE_CHECKING:
    from tiling.export.finished import Finished

SAME_SIDES = 0.01
"""By which share a pixel's sides may differ for its objects' perimeters to have a length."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectColumns:
    """The columns of a run's objects.

    Attributes:
        names: of the classes, by label.
        class_of: the label of each object, by its identifier.
        bands: names that columns of bands begin with; none where the mask's pixels aren't the image's.
        placement: where the mask lies.
        lengths: of a mask pixel's sides, y before x, with their unit; None where none holds all over the mask.
        corner: of the mask in that unit, y before x, on an image that lies nowhere on the earth.
        area_name: of an object's area; empty where it isn't known.
        areas: by identifier, where they aren't those of the map's plane; NaN where no polygon says so.
        probability: whether the run keeps any.
    """

    names: dict[int, str]
    class_of: NDArray[np.uint8]
    bands: tuple[str, ...]
    placement: Placement
    lengths: PixelSize | None
    corner: tuple[float, float] | None
    area_name: str
    areas: NDArray[np.float64] | None
    probability: bool

    @classmethod
    def of(
        cls, finished: Finished, class_of: NDArray[np.uint8], areas: NDArray[np.float64] | None = None
    ) -> ObjectColumns:
        """Of a finished run."""
        run, placement = finished.run, finished.placement
        size = placement.pixel_size
        lengths = size if size is not None and size.unit != "degree" and finished.ground is None else None
        corner = None
        if lengths is not None and placement.to_map is None:
            wide, _, left, _, tall, top = placement.to_image
            origin, level = run.card.image.origin_px or (0.0, 0.0), run.pixel_size
            assert level is not None
            corner = top / tall * lengths.y + origin[0] * level.y, left / wide * lengths.x + origin[1] * level.x
        return cls(
            {label: item.name for label, item in enumerate(run.classes)},
            class_of,
            unlike(run.card.image.bands) if run.plan.grid.is_own else (),
            placement,
            lengths,
            corner,
            finished.area_name if finished.has_areas else "",
            areas,
            bool(run.card.probabilities),
        )

    @property
    def schema(self) -> Any:
        """As `pyarrow.Schema`; the same of a run without objects."""
        return self.batch(Measured.none(len(self.bands))).schema

    def batch(self, measured: Measured) -> Any:
        """Objects as a `pyarrow.RecordBatch`."""
        arrays: dict[str, Any] = {}
        labels = self.class_of[measured.ids]
        names = np.array([self.names.get(label, "") for label in range(256)], dtype=object)
        arrays["id"] = pa.array(measured.ids, pa.int32())
        arrays["label"] = pa.array(labels, pa.int16())
        arrays["class"] = pa.array(names[labels], pa.string())
        arrays["pixels"] = pa.array(measured.pixels, pa.int64())
        if self.area_name:
            arrays[self.area_name] = pa.array(self._areas(measured))
        arrays |= {name: pa.array(values, pa.float64()) for name, values in self._places(measured).items()}
        for place, name in enumerate(("box_y0", "box_x0", "box_y1", "box_x1")):
            arrays[name] = pa.array(measured.box[:, place], pa.int32())
        arrays |= {name: pa.array(values) for name, values in self._shapes(measured).items()}
        if self.probability:
            probability = measured.probability
            none = np.full(len(measured), np.nan) if probability is None else probability
            arrays["mean_probability"] = pa.array(none, from_pandas=True)
        for number, band in enumerate(self.bands):
            arrays[f"{band}_mean"] = pa.array(measured.means[:, number])
            arrays[f"{band}_min"] = pa.array(np.ascontiguousarray(measured.least[:, number]).astype(np.float64))
            arrays[f"{band}_max"] = pa.array(np.ascontiguousarray(measured.most[:, number]).astype(np.float64))
            arrays[f"{band}_std"] = pa.array(measured.deviations[:, number])
        arrays["touches_border"] = pa.array(measured.touches_border)
        arrays["touches_failed"] = pa.array(measured.touches_missing)
        return pa.record_batch(arrays)

    def _areas(self, measured: Measured) -> NDArray[np.float64]:
        plane = self.placement.pixel_area
        flat = np.full(len(measured), np.nan) if plane is None else np.asarray(measured.pixels * plane, np.float64)
        if self.areas is None:
            return flat
        found = self.areas[measured.ids]
        return np.where(np.isfinite(found), found, flat)

    def _places(self, measured: Measured) -> dict[str, NDArray[np.float64]]:
        """Centroids: on the mask by its pixels' middles, elsewhere from the corner of the first pixel."""
        centroid = measured.shape.centroid
        middle = centroid[:, ::-1] + 0.5
        on_image = moved(self.placement.to_image, middle)
        found = {"centroid_y": centroid[:, 0], "centroid_x": centroid[:, 1]}
        found |= {"centroid_y_image": on_image[:, 1], "centroid_x_image": on_image[:, 0]}
        if self.placement.to_map is not None:
            on_map = moved(self.placement.to_map, middle)
            found |= {"centroid_y_map": on_map[:, 1], "centroid_x_map": on_map[:, 0]}
        elif self.lengths is not None and self.corner is not None:
            unit = self.lengths.unit
            found[f"centroid_y_{unit}"] = middle[:, 1] * self.lengths.y + self.corner[0]
            found[f"centroid_x_{unit}"] = middle[:, 0] * self.lengths.x + self.corner[1]
        return found

    def _shapes(self, measured: Measured) -> dict[str, NDArray[Any]]:
        shape, size = measured.shape, self.lengths
        found: dict[str, NDArray[Any]] = {"perimeter": measured.perimeter}
        if size is not None and abs(size.y - size.x) <= SAME_SIDES * max(size.y, size.x):
            found[f"perimeter_{size.unit}"] = measured.perimeter * (size.y + size.x) / 2
        found |= {"major_axis": shape.axes[:, 0], "minor_axis": shape.axes[:, 1]}
        if size is not None:
            scaled = shape.scaled(size.y, size.x)
            found |= {f"major_axis_{size.unit}": scaled.axes[:, 0], f"minor_axis_{size.unit}": scaled.axes[:, 1]}
            shape = shape if size.y == size.x else scaled
        found |= {"orientation": shape.orientation, "eccentricity": shape.eccentricity}
        return found | {"convex_pixels": measured.convex_pixels, "solidity": measured.solidity}


def unlike(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which no two are alike, also where capitals don't count, as in a GeoPackage."""
    found: list[str] = []
    taken: set[str] = set()
    for number, given in enumerate(names, 1):
        name = plain(given).strip() or f"band {number}"
        count, tried = 1, name
        while tried.casefold() in taken:
            count += 1
            tried = f"{name} {count}"
        taken.add(tried.casefold())
        found.append(tried)
    return tuple(found)
