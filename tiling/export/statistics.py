"""`statistics.csv` and `statistics.parquet`: areas and objects per class, counted on the mask itself."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from tiling.escaping import cell
from tiling.export.finished import Finished
from tiling.geometry import Unit
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED
from tiling.runs.uncomputed import NO_DATA_NAME, UncomputedArea
from tiling.storage.place import Place

Row = dict[str, Any]

_UNITS: dict[Unit, tuple[str, str, float]] = {"um": ("mm2", "um2", 1e-6), "m": ("km2", "m2", 1e-6)}
"""The unit of areas, that of an object's mean area, and the one's share of the other."""

_TYPES = {
    "label": "int64",
    "class": "string",
    "pixels": "int64",
    "objects": "int64",
    "specks": "int64",
    "pixel_size_unit": "string",
}
"""Arrow's names; all other columns are lengths, shares and means."""


def write_statistics(finished: Finished, paths: Sequence[Path]) -> None:
    """Write the rows as CSV and as Parquet; values that don't apply are empty."""
    rows = statistics(finished)
    table, columnar = paths
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    import pyarrow as pa
    from pyarrow import parquet

    # Declared, not inferred: a column without a value, as where a mask has no objects, keeps its type.
    schema = pa.schema([(name, getattr(pa, _TYPES.get(name, "float64"))()) for name in rows[0]])
    parquet.write_table(pa.Table.from_pylist(rows, schema), columnar)


def read_statistics(path: Place) -> list[Row]:
    """The rows of `statistics.parquet`; None where a value doesn't apply."""
    from pyarrow import parquet

    return cast("list[Row]", parquet.read_table(BytesIO(path.read_bytes())).to_pylist())


def statistics(finished: Finished) -> list[Row]:
    """One row per class, then one for tiles skipped as empty, one for what lies outside of polygons where some were
    asked for, one for what holds no data where an image may, and one for what was not predicted.

    Their pixels add up to the mask's. Background is what was computed and is of no class; `share_of_computed` is of
    that and the classes, `share_of_foreground` of the tissue or data that a coarse look at the image found.
    """
    tally, apart = finished.tally, UncomputedArea.of(finished.run, finished.state)
    pixels = {label: int(tally.labelled[label]) for label in range(len(finished.run.classes))}
    failed = int(tally.pixels[NOT_PREDICTED])
    computed = finished.run.plan.mask.area - apart.area - failed - (apart.no_data or 0)
    pixels[BACKGROUND] = computed - sum(pixels[label] for label in pixels if label != BACKGROUND)
    rows: list[Row] = []
    for label, item in enumerate(finished.run.classes):
        is_object = label != BACKGROUND
        foreground = apart.foreground if is_object else None
        objects = int(tally.objects[label]) if is_object else None
        rows.append(_row(finished, label, item.name, pixels[label], computed, foreground, objects))
    rows += [_row(finished, *each, None, None, None) for each in apart.rows(failed)]
    return rows


def _row(
    finished: Finished,
    label: int,
    name: str,
    pixels: int,
    computed: int | None,
    foreground: float | None,
    objects: int | None,
) -> Row:
    row: Row = {"label": label, "class": name, "pixels": pixels}
    area, plane = _area(finished, label, name, pixels), finished.placement.pixel_area
    unit = _UNITS.get(finished.area_unit) if finished.area_unit is not None else None
    if unit is not None and area is not None:
        row[f"area_{unit[0]}"] = area * unit[2]
    if unit is not None and plane is not None and finished.ground is not None:
        row[f"area_projected_{unit[0]}"] = pixels * plane * unit[2]
    row["share_of_computed"] = pixels / computed if computed else None
    row["share_of_foreground"] = pixels / foreground if foreground else None
    row["objects"] = objects
    if finished.built is not None:
        row["specks"] = None if objects is None else finished.built.specks.get(label, 0)
    of_objects = int(finished.tally.pixels[label])
    row["mean_object_pixels"] = of_objects / objects if objects else None
    if unit is not None and area is not None:
        mean = (finished.tally.areas[label] if finished.has_areas else 0.0) / objects if objects else None
        row[f"mean_object_{unit[1]}"] = mean
    # What the network saw the image at; empty where nothing says it, and so neither does any number of this table.
    size = finished.run.card.image.pixel_size or (None, None, None)
    return row | dict(zip(("pixel_size_y", "pixel_size_x", "pixel_size_unit"), size, strict=True))


def _area(finished: Finished, label: int, name: str, pixels: int) -> float | None:
    """Of all pixels of a row, in the square of `area_unit`.

    On the ground, objects are measured one by one; what is left of the mask's area is shared by pixels.
    """
    plane, tally, ground = finished.placement.pixel_area, finished.tally, finished.ground
    if ground is None:
        return None if plane is None else pixels * plane
    areas = finished.label_areas
    if label != BACKGROUND and name != NO_DATA_NAME:  # pixels without data are of no object
        return float(areas[label])
    left_pixels = finished.run.plan.mask.area - int(tally.labelled[BACKGROUND + 1 :].sum())
    left = max(0.0, finished.ground_total - float(areas.sum()))
    return left / left_pixels * pixels if left_pixels else 0.0
