"""Objects of a run as a table in Python: with polygons where GeoPandas is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config.export import ExportConfig
from flows.run.exports import export_here
from tiling.errors import ExportError

if TYPE_CHECKING:
    from tiling.runs.run import Run
    from tiling.storage.place import Place


def objects_of(run: Run, columns: Sequence[str] | None) -> Any:
    """A row for each object by its `id`: `geopandas.GeoDataFrame`, else `pandas.DataFrame`, else `pyarrow.Table`.

    Raises:
        RunError: another driver is at work on the run.
        ExportError: the run isn't finished, its objects aren't numbered, or a column isn't there.
    """
    wanted = None if columns is None else [*dict.fromkeys(("id", *columns))]
    if find_spec("geopandas") is not None and (wanted is None or "geometry" in wanted):
        return _with_polygons(run, wanted)
    export_here(ExportConfig(run=run.path, formats="table"))
    from pyarrow import parquet

    file = _local(run.exports / "objects-table.parquet")
    _expect(wanted, parquet.read_schema(file).names)
    table = parquet.read_table(file, columns=wanted)
    return table if find_spec("pandas") is None else table.to_pandas()


def _with_polygons(run: Run, wanted: list[str] | None) -> Any:
    from pyarrow import parquet

    export_here(ExportConfig(run=run.path, formats="table,geoparquet"))
    file = _local(run.exports / "objects.parquet")
    _expect(wanted, parquet.read_schema(file).names)
    frame: Any = import_module("geopandas").read_parquet(file, columns=wanted)
    # What was not predicted has polygons and no identifier.
    frame = frame[frame["id"].notna()]
    return frame.astype({"id": "int32"}).sort_values("id", ignore_index=True)


def _local(place: Place) -> Any:
    return place if isinstance(place, Path) else BytesIO(place.read_bytes())


def _expect(wanted: list[str] | None, names: list[str]) -> None:
    unknown = [name for name in wanted or [] if name not in names]
    if unknown:
        raise ExportError(f"objects have no column {unknown[0]!r}; there are {', '.join(names)}")
