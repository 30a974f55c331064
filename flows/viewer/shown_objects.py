"""Objects of a run as the page shows them: the one under the pointer with its outline and what was measured of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet

from tiling.errors import TilingError
from tiling.export.export_run import is_shown
from tiling.export.object_table import GROUP_ROWS
from tiling.geometry import Box
from tiling.objects.image import ObjectImage, open_objects
from tiling.objects.record import built_objects
from tiling.runs.ledger import LedgerState
from tiling.runs.run import Run
from tiling.shapes import polygonize

MOST_OUTLINED_PX = 1024
"""Objects whose box is larger have no outline of their own: it would take too long to find while a pointer moves."""
_UNITS = {"um": "µm", "m": "m"}
_LENGTHS = {"perimeter": "Perimeter", "major_axis": "Major axis", "minor_axis": "Minor axis"}
_PLAIN = {"eccentricity": "Eccentricity", "solidity": "Solidity", "mean_probability": "Mean probability"}


class ShownObjects:
    """The objects of a run at one state of its ledger. Safe to use from several threads."""

    def __init__(self, run: Run, state: LedgerState) -> None:
        self._run = run
        built = built_objects(run, state)
        self.image: ObjectImage | None = open_objects(run) if built is not None else None
        self._has_table = self.image is not None and is_shown(run, state, "table")
        self._lock = threading.Lock()
        self._file: parquet.ParquetFile | None = None
        self._group: tuple[int, list[dict[str, Any]]] | None = None

    def at(self, y: float, x: float) -> dict[str, Any]:
        """The object under a point of the level that is segmented: its number, None where there is none."""
        scale, image = self._run.plan.grid.scale, self.image
        row, col = int(y * scale[0]), int(x * scale[1])
        if image is None or not Box(0, 0, *image.shape).contains(Box(row, col, row + 1, col + 1)):
            return {"id": None}
        number = int(image.read(Box(row, col, row + 1, col + 1))[0, 0])
        if not number:
            return {"id": None}
        label, found = int(image.classes[number]), self._row(number)
        pixels = int(image.pixels[number])
        values = [("Area", f"{pixels:,} px")] if found is None else [*described(found)]
        return {
            "id": number,
            "class": self._run.classes[label].name,
            "values": values,
            "outline": [] if found is None else self._outline(number, found),
        }

    def _row(self, number: int) -> dict[str, Any] | None:
        """Row of the exported table for an object; None where there is none of this mask."""
        if not self._has_table:
            return None
        with self._lock:
            try:
                if self._file is None:
                    place = self._run.exports / "objects-table.parquet"
                    self._file = parquet.ParquetFile(place if isinstance(place, Path) else BytesIO(place.read_bytes()))
                group, at = divmod(number - 1, GROUP_ROWS)
                if self._group is None or self._group[0] != group:
                    self._group = group, self._file.read_row_group(group).to_pylist()
                found = self._group[1][at]
            except (OSError, ValueError, IndexError, TilingError):
                return None
            return found if found["id"] == number else None

    def _outline(self, number: int, row: dict[str, Any]) -> list[list[list[float]]]:
        """Its rings as points of x and y in pixels of the level."""
        assert self.image is not None
        box = Box(row["box_y0"], row["box_x0"], row["box_y1"], row["box_x1"])
        if max(box.shape) > MOST_OUTLINED_PX:
            return []
        own = (self.image.read(box) == number).astype(np.uint8)
        scale = self._run.plan.grid.scale
        corner, to_level = np.array([box.x0, box.y0]), np.array([1 / float(scale[1]), 1 / float(scale[0])])
        rings = (ring for shapes in polygonize([own]) for _, found in shapes for ring in found)
        return [((ring + corner) * to_level).tolist() for ring in rings]


def described(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Measures of an object, in words."""
    unit = next((unit for unit in _UNITS if f"area_{unit}2" in row), None)
    area = f"{number(row[f'area_{unit}2'])} {_UNITS[unit]}²" if unit is not None else f"{row['pixels']:,} px"
    yield "Area", area
    for column, name in _LENGTHS.items():
        length = row.get(f"{column}_{unit}")
        if length is not None and unit is not None:
            yield name, f"{number(length)} {_UNITS[unit]}"
        else:
            yield name, f"{number(row[column])} px"
    for column, name in _PLAIN.items():
        if row.get(column) is not None:
            yield name, number(row[column])
    for column, value in row.items():
        band = column.removesuffix("_mean")
        if band != column and f"{band}_std" in row and value is not None:
            yield band, f"{number(value)} ± {number(row[f'{band}_std'])}"
    touched = [name for name, kind in (("the border", "border"), ("a failed tile", "failed")) if row[f"touches_{kind}"]]
    if touched:
        yield "Touches", " and ".join(touched)


def number(value: float) -> str:
    """Three digits and more where the number has them."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
