"""Exports, opened again by readers of their kind before they count: whole, well-formed, with as much as was written.

What is looked at doesn't grow with the file: heads, ends, counts. That its pixels are the mask's, the COG's writer
looks itself.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

from tiling.export.finished import Finished

_END_BYTES = 64 * 1024
MOST_LINES = 1 << 14
"""That are parsed of a table, one after another."""


def expect_readable(finished: Finished, paths: Sequence[Path], form: str = "") -> None:
    """Open each file of a format as its readers do; `form` is the format's name.

    Raises:
        OSError: one of them isn't what was to be written.
    """
    polygons = int(finished.tally.objects.sum())
    for path in paths:
        try:
            if finished.measured is not None and path.suffix in _BY_ROW and form in TABLES:
                _BY_ROW[path.suffix](path, finished.measured.count)
            else:
                _LOOKS[path.suffix](path, polygons)
        except Exception as error:
            raise OSError(f"what was written can't be read again: {type(error).__name__}: {error}") from error


def _table(path: Path, _: int) -> None:
    if len(_cells(path)) < 2:
        raise ValueError("it has no line under that of the names")


def _columns(path: Path, objects: int) -> None:
    from pyarrow import parquet

    metadata = parquet.ParquetFile(path).metadata
    if b"geo" in (metadata.metadata or {}):
        _expect_count(metadata.num_rows, objects)


def _annotated(path: Path, objects: int) -> None:
    data: Any = import_module("anndata").read_h5ad(path, backed="r")
    _expect_count(data.n_obs, objects)
    data.file.close()


def _tiff(path: Path, _: int) -> None:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        size = path.stat().st_size
        for level in tiff.series[0].levels:
            for page in level.pages:
                _expect_inside(cast("Any", page), size)
        if ".ome." in path.name and not tiff.ome_metadata:
            raise ValueError("nothing in it says what it is")
        # Both kinds of description are XML, and a reader that takes one for ill-formed takes nothing of the file.
        for text in (tiff.ome_metadata, cast("Any", tiff.pages.first).tags.valueof(42112)):
            if text:
                ET.fromstring(text)


def _expect_inside(page: Any, size: int) -> None:
    """Every tile of a page lies in the file."""
    ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > size:
        raise ValueError("tiles that it names lie beyond its end")


def _features(path: Path, _: int) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size <= 2 * _END_BYTES:
            file.seek(0)
            json.loads(file.read())
            return
        file.seek(0)
        head = file.read(_END_BYTES)
        file.seek(size - _END_BYTES)
        end = file.read()
    if not head.startswith(b'{"type":"FeatureCollection"') or not end.rstrip().endswith(b"]}"):
        raise ValueError("it doesn't begin or end as a collection of features does")
    # Each feature stands on a line of its own; those that are there as a whole are read.
    for line in [*head.split(b"\n")[1:-1], *end.split(b"\n")[1:-2]]:
        json.loads(line.rstrip(b","))


def _layer(path: Path, objects: int) -> None:
    import pyogrio

    _expect_count(pyogrio.read_info(path)["features"], objects)


def _style(path: Path, _: int) -> None:
    ET.parse(path)


def _item(path: Path, _: int) -> None:
    if json.loads(path.read_bytes())["assets"].keys() != {"mask"}:
        raise ValueError("it names another asset than the mask")


def _picture(path: Path, _: int) -> None:
    from PIL import Image

    with Image.open(path) as picture:
        picture.verify()


def _expect_count(found: int, objects: int) -> None:
    if found != objects:
        raise ValueError(f"it holds {found} objects, and the mask {objects}")


def _lines(path: Path, objects: int) -> None:
    """A line for each object under that of the names, all with as many cells as that."""
    from pyarrow import csv

    first = csv.ConvertOptions(include_columns=["id"])  # of the others only the cells are counted
    with csv.open_csv(path, convert_options=first) as reader:
        _expect_count(sum(batch.num_rows for batch in reader), objects)


def _cells(path: Path) -> list[int]:
    """Number of cells that each line has, of the first ones; all of them the same."""
    with path.open(newline="", encoding="utf-8") as file:
        cells = [len(row) for row in islice(csv.reader(file, strict=True), MOST_LINES)]
    if len(set(cells)) > 1:
        raise ValueError("its lines differ in their number of cells")
    return cells


def _rows(path: Path, objects: int) -> None:
    from pyarrow import parquet

    _expect_count(parquet.ParquetFile(path).metadata.num_rows, objects)


TABLES = ("table", "anndata")
"""Formats with a row for each object that was numbered, and none for what was not predicted."""
_BY_ROW = {".csv": _lines, ".parquet": _rows, ".h5ad": _annotated}
_LOOKS = {
    ".csv": _table,
    ".parquet": _columns,
    ".h5ad": _annotated,
    ".tif": _tiff,
    ".geojson": _features,
    ".gpkg": _layer,
    ".json": _item,
    ".qml": _style,
    ".png": _picture,
}
