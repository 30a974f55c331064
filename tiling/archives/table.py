"""Table of an archive's slides: a row each, as CSV and as Parquet, for a spreadsheet or for statistics."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tiling.archives.slide_record import SlideRecord
from tiling.escaping import cell

COLUMNS: dict[str, str] = {
    "slide": "string",
    "state": "string",
    "reason": "string",
    "run": "string",
    "megapixels": "float64",
    "seconds": "float64",
    "tiles": "int64",
    "failed_tiles": "int64",
    "mask_bytes": "int64",
    "pixel_size_y": "float64",
    "pixel_size_x": "float64",
    "pixel_size_unit": "string",
    "file_bytes": "int64",
    "model": "string",
    "flags": "string",
    "acknowledged": "bool_",
    "night": "string",
    "tissue_area": "float64",
    "area_unit": "string",
    "objects": "int64",
    "specks_share": "float64",
    "brightness": "float64",
    "contrast": "float64",
    "sharpness": "float64",
    "skipped_share": "float64",
    "no_data_share": "float64",
    "missing_since": "string",
}
"""Columns that every table has, with Arrow's names of their types."""

_PER_CLASS = {"objects": "int64", "area": "float64", "share": "float64"}

Row = dict[str, Any]


class SlideTable:
    """Rows of slides in order of their names; classes and stages have columns of their own.

    Args:
        records: of the slides.
        model: that all of them are segmented with.
        flags: why some are to be looked at.
    """

    def __init__(self, records: Iterable[SlideRecord], model: str, flags: Mapping[str, Sequence[str]]) -> None:
        self._records = sorted(records, key=lambda each: each.slide)
        self._model, self._flags = model, flags
        classes = dict.fromkeys(name for each in self._records for name in each.measures.get("classes", {}))
        stages = dict.fromkeys(name for each in self._records for name in each.stage_seconds)
        self.types = {
            **COLUMNS,
            **{f"{what} of {name}": kind for name in classes for what, kind in _PER_CLASS.items()},
            **{f"seconds of {stage}": "float64" for stage in stages},
        }

    def rows(self) -> list[Row]:
        """A value per column; None where it doesn't apply or isn't known."""
        return [{**dict.fromkeys(self.types), **self._row(record)} for record in self._records]

    def csv(self) -> bytes:
        """One line per slide, of which a spreadsheet obeys nothing."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([cell(name) for name in self.types])
        for row in self.rows():
            writer.writerow(["" if value is None else cell(value) for value in row.values()])
        return text.getvalue().encode()

    def parquet(self) -> bytes:
        """The same with types: a column without a value keeps its own."""
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in self.types.items()])
        file = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(self.rows(), schema), file)
        return file.getvalue()

    def _row(self, record: SlideRecord) -> Row:
        found = record.measures
        size = record.pixel_size or (None, None, None)
        return {
            "slide": record.slide,
            "state": record.state.value,
            "reason": record.reason or "",
            "run": record.folder,
            "megapixels": round(record.pixels / 1e6, 3),
            "seconds": record.seconds,
            "tiles": record.tiles,
            "failed_tiles": record.failed_tiles,
            "mask_bytes": record.mask_bytes,
            **dict(zip(("pixel_size_y", "pixel_size_x", "pixel_size_unit"), size, strict=True)),
            "file_bytes": record.size_bytes,
            "model": self._model,
            "flags": "; ".join(self._flags.get(record.slide, ())),
            "acknowledged": record.acknowledged,
            "night": record.night,
            "tissue_area": found.get("tissue_area"),
            "area_unit": found.get("unit"),
            "objects": found.get("objects"),
            "specks_share": found.get("specks"),
            **{name: found.get(name) for name in ("brightness", "contrast", "sharpness")},
            "skipped_share": found.get("skipped"),
            "no_data_share": found.get("no_data"),
            "missing_since": record.missing_since or None,
            **self._of_classes(found.get("classes", {})),
            **{f"seconds of {stage}": seconds for stage, seconds in record.stage_seconds.items()},
        }

    def _of_classes(self, classes: Mapping[str, Mapping[str, Any]]) -> Row:
        return {f"{what} of {name}": each[what] for name, each in classes.items() for what in _PER_CLASS}
