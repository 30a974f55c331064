"""Exports of a run, read back: the objects of each file rasterised again by GDAL, beside those of the run.

python -m benchmarks.exported RUN --formats qupath geopackage
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyarrow import parquet
from rasterio import features
from rasterio.warp import transform

from tiling.export.formats import FORMATS
from tiling.geometry import Box
from tiling.georeference.placement import Placement
from tiling.objects.image import open_objects
from tiling.runs.ledger import TileState
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED
from tiling.runs.no_data import NO_DATA
from tiling.runs.placement import placement_of
from tiling.runs.run import Run

Labels = NDArray[np.uint8]
Batch = tuple[NDArray[Any], NDArray[np.uint8]]
"""Polygons, and the label of each."""

AT_ONCE = 20_000
TALL_PX = 2048
"""Objects taller than this are rasterised one by one, the others some thousands at once."""
_FEATURE = b'{"type":"Feature",'
WITH_LABELS = (TileState.DONE, TileState.SKIPPED)
VECTORS = ("qupath", "geojson", "geopackage", "geoparquet")


def batches_of(run: Run, name: str, placement: Placement) -> Iterator[Batch]:
    """The objects of a file, in the coordinates of `affine_of`."""
    path = Path(str(run.exports / FORMATS[name].files[0]))
    if name == "geopackage":
        with pyogrio.open_arrow(path, batch_size=AT_ONCE, use_pyarrow=True) as (meta, reader):
            yield from (_of_table(batch, meta["geometry_name"] or "wkb_geometry") for batch in reader)
    elif name == "geoparquet":
        yield from (_of_table(batch, "geometry") for batch in parquet.ParquetFile(path).iter_batches(AT_ONCE))
    else:
        numbers = {item.name: label for label, item in enumerate(run.classes)} | {"not predicted": NOT_PREDICTED}
        yield from _of_json(path, numbers, _crs_of(placement) if name == "geojson" else None)


def _of_table(batch: Any, column: str) -> Batch:
    return shapely.from_wkb(batch.column(column).to_pylist()), np.array(batch.column("label"), np.uint8)


def _of_json(path: Path, numbers: dict[str, int], crs: Any) -> Iterator[Batch]:
    """Features of a collection with one on each line; from longitude and latitude to a CRS where one is given."""
    with path.open(encoding="utf-8") as file:
        lines = (line.strip().rstrip(",") for line in file)
        found = (json.loads(line) for line in lines if line.startswith(_FEATURE.decode()))
        while some := list(islice(found, AT_ONCE)):
            polygons = np.array([shapely.geometry.shape(each["geometry"]) for each in some])
            described = (each["properties"] for each in some)
            names = [each["class"] if "class" in each else each["classification"]["name"] for each in described]
            labels = np.array([numbers[name] for name in names], np.uint8)
            yield polygons if crs is None else shapely.transform(polygons, _to(crs)), labels


def _to(crs: Any) -> Any:
    return lambda points: np.column_stack(transform("EPSG:4326", crs, points[:, 0], points[:, 1]))


def _crs_of(placement: Placement) -> Any:
    from tiling.georeference.crs import crs_of

    assert placement.georeference is not None
    return crs_of(placement.georeference)


def affine_of(name: str, placement: Placement) -> rasterio.Affine:
    """From pixels of the mask to the coordinates of a format."""
    on_map = name in {"geojson", "geopackage"} or (name == "geoparquet" and placement.to_map is not None)
    affine = placement.to_map if on_map else placement.to_image
    assert affine is not None
    return rasterio.Affine(*affine)


def rasterised(batches: Iterable[Batch], shape: tuple[int, int], affine: rasterio.Affine) -> tuple[Labels, int]:
    """All objects as labels again, and how many they are."""
    labels, objects = np.zeros(shape, np.uint8), 0
    for polygons, values in batches:
        objects += len(polygons)
        boxes = _boxes_of(polygons, shape, affine)
        tall = boxes[:, 2] - boxes[:, 0] > TALL_PX
        for some in (np.flatnonzero(~tall), *np.flatnonzero(tall)[:, np.newaxis]):
            if some.size:
                _burn(labels, polygons[some], values[some], boxes[some], affine)
    return labels, objects


def _boxes_of(polygons: NDArray[Any], shape: tuple[int, int], affine: rasterio.Affine) -> NDArray[np.int64]:
    """First row and column, and those after the last, generously, of each polygon."""
    x0, y0, x1, y1 = shapely.bounds(polygons).T
    corners = np.array([~affine * corner for corner in ((x0, y0), (x0, y1), (x1, y0), (x1, y1))])[:, ::-1]
    low, high = np.floor(corners.min(0)) - 1, np.ceil(corners.max(0)) + 1
    limits = np.array(shape)[:, np.newaxis]
    return np.concatenate([np.clip(low, 0, limits), np.clip(high, 0, limits)]).astype(np.int64).T


def _burn(
    labels: Labels, polygons: NDArray[Any], values: Labels, boxes: NDArray[np.int64], affine: rasterio.Affine
) -> None:
    (top, left), (bottom, right) = boxes[:, :2].min(0).tolist(), boxes[:, 2:].max(0).tolist()
    found = features.rasterize(
        zip(polygons, values.tolist(), strict=True),
        (bottom - top, right - left),
        transform=affine * rasterio.Affine.translation(left, top),
        dtype="uint8",
    )
    np.copyto(labels[top:bottom, left:right], found, where=np.not_equal(found, 0))


def count(run: Run, name: str) -> dict[str, int]:
    """How many objects a file holds, without a look at them."""
    path = Path(str(run.exports / FORMATS[name].files[0]))
    if name == "geopackage":
        return {"objects": pyogrio.read_info(path, force_feature_count=True)["features"]}
    if name == "geoparquet":
        return {"objects": parquet.ParquetFile(path).metadata.num_rows}
    with path.open("rb") as file:
        return {"objects": sum(line.startswith(_FEATURE) for line in file)}


def shown_bands(run: Run) -> Iterator[Labels]:
    """Labels that a file of objects has to give back, from top to bottom: the numbered objects', where some are.

    What is missing of the mask is shown as such; pixels without data belong to no object.
    """
    state, mask, objects = run.ledger.fold(), run.open_mask(read_only=True), open_objects(run)
    height, width = run.plan.mask.shape
    no_object = [run.plan.tile(int(at)).valid for at in np.flatnonzero(np.isin(state.states, WITH_LABELS))]
    for y in range(0, height, TALL_PX):
        box = Box(y, 0, min(y + TALL_PX, height), width)
        labels = mask.read(box)
        for valid in no_object:
            if (part := valid.intersect(box)).area:
                seen = labels[part.relative_to(box).slices]
                seen[seen == NO_DATA] = BACKGROUND
        if objects is not None:
            labels = np.where(labels == NOT_PREDICTED, labels, objects.classes[objects.read(box)])
        yield labels


def compare(run: Run, name: str) -> dict[str, int]:
    """How many objects a file holds, and how many pixels they give back otherwise than they have to."""
    with run.open_source() as source:
        placement = placement_of(run, source)
    shape = run.plan.mask.shape
    labels, objects = rasterised(batches_of(run, name, placement), shape, affine_of(name, placement))
    bands = zip(range(0, shape[0], TALL_PX), shown_bands(run), strict=True)
    differing = sum(int(np.count_nonzero(shown != labels[y : y + TALL_PX])) for y, shown in bands)
    return {"objects": objects, "differing": differing}


def main() -> None:
    parser = argparse.ArgumentParser(description="Read exports back.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--formats", nargs="+", required=True, choices=VECTORS)
    parser.add_argument("--count", action="store_true", help="only count the objects")
    given = parser.parse_args()
    run = Run.open(given.run)
    found = {name: count(run, name) if given.count else compare(run, name) for name in given.formats}
    print(json.dumps({"pixels": run.plan.mask.area, "formats": found}))


if __name__ == "__main__":
    main()
