"""`objects.h5ad`: the table of objects as AnnData, which scanpy, squidpy and others open.

An observation is an object, by its identifier; variables are what was measured; `obsm["spatial"]` holds x and y of the
centroids in pixels of the image's level 0, as squidpy takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tiling.errors import ExportError
from tiling.export.finished import Finished
from tiling.export.subject import Subject

_NO_VARIABLE = ("id", "label", "class", "touches_border", "touches_failed")
_OBSERVED = ("label", "touches_border", "touches_failed")


def expect_anndata(subject: Subject) -> None:
    """Raise ExportError where the library that writes it isn't installed."""
    subject.expect_objects("anndata")
    if find_spec("anndata") is None:
        raise ExportError(
            "anndata is written with a library that isn't installed: pip install 'overtile[anndata]', or export "
            "--format table, which holds the same"
        )


def _library() -> Any:
    """The library that writes it, loaded; raises ExportError where that lacks a library of its own."""
    try:
        return import_module("anndata")
    except ImportError as error:
        raise ExportError(
            f"anndata is installed and can't be loaded ({error}): pip install 'overtile[anndata]' again, or export "
            "--format table, which holds the same"
        ) from error


def write_anndata(finished: Finished, paths: Sequence[Path]) -> None:
    """All objects; their figures are in memory once, as 8 bytes each."""
    import pandas as pd

    table = finished.table
    variables = [name for name in table.schema.names if name not in _NO_VARIABLE and not name.startswith("centroid")]
    count = table.count
    measured, spatial = np.empty((count, len(variables))), np.empty((count, 2))
    observed = {name: np.empty(count, np.int16 if name == "label" else np.bool_) for name in _OBSERVED}
    names = np.empty(count, object)
    first = 0
    for batch in table.batches():
        rows = slice(first, first := first + batch.num_rows)
        for place, name in enumerate(variables):
            measured[rows, place] = _numbers(batch, name)
        for place, name in enumerate(("centroid_x_image", "centroid_y_image")):
            spatial[rows, place] = _numbers(batch, name)
        for name, values in observed.items():
            values[rows] = batch.column(name).to_numpy()
        names[rows] = batch.column("class").to_pylist()
    known = [item.name for label, item in sorted(finished.classes.items()) if label < len(finished.run.classes)]
    # Strings as plain objects: anndata doesn't write pandas' own kinds of them.
    index = pd.Index(np.arange(1, count + 1).astype(str).astype(object), dtype=object)
    classes = pd.Categorical(names, categories=pd.Index(list(dict.fromkeys(known)), dtype=object))
    about = pd.DataFrame({"class": classes, **observed}, index=index)
    named = pd.DataFrame(index=pd.Index(variables, dtype=object))
    data: Any = _library().AnnData(measured, obs=about, var=named, obsm={"spatial": spatial})
    image = finished.run.card.image.path.rstrip("/").rpartition("/")[2]
    data.uns["image"], data.uns["model"] = image, finished.run.card.model.name
    data.write_h5ad(paths[0])


def _numbers(batch: Any, name: str) -> Any:
    return batch.column(name).to_numpy().astype(np.float64)
