"""Measurements of objects as QuPath keeps them: numbers by name, named as its own detections' are.

https://qupath.github.io/javadoc/docs/qupath/lib/measurements/MeasurementList.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiling.export.numerals import columns_of_numerals, joined, numerals
from tiling.shapes import Shapes

if TYPE_CHECKING:
    from tiling.export.finished import Finished
    from tiling.export.object_table import ObjectTable

_UNITS = {"um": "µm", "m": "m", "px": "px"}
_LENGTHS = {"perimeter": "Length", "major_axis": "Major axis", "minor_axis": "Minor axis"}
_PLAIN = {
    "solidity": "Solidity",
    "eccentricity": "Eccentricity",
    "orientation": "Orientation",
    "mean_probability": "Mean probability",
}
_OF_BANDS = {"mean": "Mean", "std": "Std.Dev.", "min": "Min", "max": "Max"}


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """The measurements of a run's objects.

    Attributes:
        objects: their table.
        columns: of it, with the name of each behind that of a class.
        prefixes: what each class's names begin with, as JSON has it, by label.
    """

    objects: ObjectTable
    columns: Mapping[str, str]
    prefixes: NDArray[Any]

    @classmethod
    def of(cls, finished: Finished, objects: ObjectTable) -> Measurements:
        """Of a finished run."""
        prefixes = np.full(256, "", dtype=object)
        for label, item in finished.classes.items():
            prefixes[label] = _inner(f"{item.name[:1].upper()}{item.name[1:]}: ")
        return cls(objects, named(objects.schema.names), prefixes)

    def of_shapes(self, shapes: Shapes) -> list[bytes]:
        """Text of each object's measurements, to stand behind its other properties; of what was not predicted none."""
        known = shapes.ids != 0
        ids, labels = shapes.ids[known], shapes.labels[known]
        beginnings = joined('"', pa.array(self.prefixes[labels], pa.string()))
        rows = self.objects.take(ids, [*self.columns])
        figures = columns_of_numerals([rows.column(column).to_numpy() for column in self.columns])
        members = [
            joined(beginnings, f'{_inner(name)}":', texts)
            for name, texts in zip(self.columns.values(), figures, strict=True)
        ]
        measured = joined(joined('"Object ID":', numerals(ids)), *members, between=",", without=True)
        texts = iter(joined(',"measurements":{', measured, "}").cast(pa.binary()).to_pylist())
        return [next(texts) if is_known else b"" for is_known in known.tolist()]


def _inner(name: str) -> str:
    """A name as JSON has it between its quotation marks."""
    return json.dumps(name, ensure_ascii=False)[1:-1]


def named(columns: list[str]) -> dict[str, str]:
    """Columns of a table that QuPath has a place for, with what it calls such."""
    unit = next((unit for unit in ("um", "m") if f"major_axis_{unit}" in columns), "px")
    ending = "" if unit == "px" else f"_{unit}"
    found: dict[str, str] = {}
    areas = [(f"area_{unit}2", _UNITS[unit]), ("pixels", "px")]
    for column, sign in areas:
        if column in columns and not found:
            found[column] = f"Area {sign}^2"
    for column, name in _LENGTHS.items():
        if f"{column}{ending}" in columns:
            found[f"{column}{ending}"] = f"{name} {_UNITS[unit]}"
    found |= {column: name for column, name in _PLAIN.items() if column in columns}
    for column in columns:
        band, _, kind = column.rpartition("_")
        if kind in _OF_BANDS and all(f"{band}_{each}" in columns for each in _OF_BANDS):
            found[column] = f"{band}: {_OF_BANDS[kind]}"
    return found
