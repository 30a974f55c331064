"""`objects-table.csv` and `objects-table.parquet`: a row for each object with all that was measured, no polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pyarrow import csv, parquet

from tiling.escaping import cell
from tiling.export.finished import Finished
from tiling.export.object_table import GROUP_ROWS
from tiling.export.subject import Subject


def expect_table(subject: Subject) -> None:
    """Raise ExportError where the run's objects aren't numbered."""
    subject.expect_objects("table")


def write_table(finished: Finished, paths: Sequence[Path]) -> None:
    """Write both, a batch of objects at a time; in CSV a value that isn't known is empty."""
    table = finished.table
    as_text, columnar = paths
    names = [cast("str", cell(name)) for name in table.schema.names]
    schema = pa.schema([field.with_name(name) for name, field in zip(names, table.schema, strict=True)])
    options = csv.WriteOptions(include_header=True)
    with (
        csv.CSVWriter(as_text, schema, write_options=options) as text,
        parquet.ParquetWriter(columnar, table.schema, compression="zstd") as columns,
    ):
        for batch in table.batches():
            columns.write_table(batch, GROUP_ROWS)
            text.write_table(_as_text(batch).rename_columns(names))


def _as_text(batch: Any) -> Any:
    """The same with names that no spreadsheet takes for a formula."""
    place = batch.schema.get_field_index("class")
    words = batch.column("class").combine_chunks().dictionary_encode()
    safe = pa.array([cell(name) for name in words.dictionary.to_pylist()], pa.string())
    return batch.set_column(place, "class", pa.DictionaryArray.from_arrays(words.indices, safe).cast(pa.string()))
