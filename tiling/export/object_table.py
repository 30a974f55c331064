"""Table of a run's objects: one row for each, kept in a file on the way and read back by identifier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

ROWS = 1 << 16
"""That are held at once."""
GROUP_ROWS = 1 << 12
"""Of a Parquet file's group: what is read to look at one object."""


class ObjectTable:
    """Rows in the order in which their objects end, and the way from an identifier to its row.

    Args:
        path: of a file that isn't there yet; it is the caller's to remove.
        schema: of the rows, `id` among them.
        count: of the objects: identifiers are 1 and up to it.
    """

    def __init__(self, path: Path, schema: Any, count: int) -> None:
        self._path, self.schema, self.count = path, schema, count
        self._row_of = np.full(count + 1, -1, np.int64)
        self._rows = 0
        self._table: Any = None

    def extend(self, batches: Iterable[Any]) -> None:
        """Keep all rows, given as `pyarrow.RecordBatch`.

        Raises:
            ValueError: there are others than identifiers say.
        """
        waiting: list[Any] = []
        with ipc.new_file(self._path, self.schema) as writer:
            for batch in batches:
                ids = batch.column("id").to_numpy()
                self._row_of[ids] = self._rows + np.arange(ids.size)
                self._rows += ids.size
                waiting.append(batch)
                if sum(each.num_rows for each in waiting) >= ROWS:
                    writer.write_table(pa.Table.from_batches(waiting).combine_chunks())
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting).combine_chunks())
        missing = int((self._row_of[1:] < 0).sum())
        if missing or self._rows != self.count:
            raise ValueError(f"{self._rows} objects were measured, and there are {self.count}, {missing} without a row")

    def take(self, ids: NDArray[np.integer[Any]], names: Sequence[str] | None = None) -> Any:
        """Their rows as a `pyarrow.Table`, of these columns or of all; of 0, which is no object, a row of nulls."""
        rows = self._row_of[ids]
        known, table = rows[rows >= 0], self._opened()
        table = table if names is None else table.select(names)
        first = int(known.min(initial=self._rows))
        span = int(known.max(initial=first)) + 1 - first
        if span <= 2 * ROWS:
            # Objects that end near each other have rows near each other: one piece is taken from far sooner than many.
            table, rows = table.slice(first, span).combine_chunks(), rows - first
        return table.take(pa.array(np.maximum(rows, 0), mask=self._row_of[ids] < 0))

    def batches(self) -> Iterator[Any]:
        """All rows by identifier, as `pyarrow.Table`."""
        for first in range(1, self.count + 1, ROWS):
            yield self.take(np.arange(first, min(first + ROWS, self.count + 1)))

    def _opened(self) -> Any:
        if self._table is None:
            # Of a file that is mapped only what is asked for is in memory.
            self._table = ipc.open_file(pa.memory_map(str(self._path))).read_all()
        return self._table
