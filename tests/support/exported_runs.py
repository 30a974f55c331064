"""Finished runs over a real slide and a real scene, exported as suits them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from finished import CLASSES, blobs, finished_run

from tiling.export.export_run import export_run
from tiling.export.formats import FORMATS
from tiling.runs.run import Run
from tiling.source import open_source

WRITABLE = [name for name in FORMATS if name != "anndata" or find_spec("anndata") is not None]
"""All formats, but those whose library is an extra that isn't installed."""
NAMES = {item[0]: label for label, item in enumerate(CLASSES)} | {"not predicted": 255}


def export(run: Run, formats: str) -> list[str]:
    with run.open_source() as source:
        return [each.name for each in export_run(run, source, formats)]


def exported(run: Run, name: str) -> Path:
    path = run.exports / name
    assert isinstance(path, Path)
    return path


@pytest.fixture(scope="module")
def slide(data_dir: Path) -> Path:
    return data_dir / "slides" / "CMU-1-Small-Region.svs"


@pytest.fixture(scope="module")
def on_slide(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over the real slide with a failed tile and a skipped one, exported as suits it."""
    folder = tmp_path_factory.mktemp("slide")
    with open_source(slide) as source:
        height, width = source.levels[0].box.shape
    # Blobs of nuclei's size: GDAL burns thousands of objects in seconds, tens of thousands in half a minute.
    small = blobs((-(-height // 4), -(-width // 4)))
    labels = np.ascontiguousarray(np.kron(small, np.ones((4, 4), np.uint8))[:height, :width])
    labels[::97, ::89] = 1  # and objects of single pixels, some that touch others by a corner
    marked: dict[str, Any] = {"failed": [(1, 2)], "skipped": [(4, 0)]}
    run = finished_run(slide, folder / "run", labels, core=512, probabilities=True, **marked)
    assert export(run, "auto") == ["statistics", "ome-tiff", "qupath", "probabilities-ome-tiff"]
    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of half a micrometre per pixel, on which the ways of a run are tried."""
    path = tmp_path_factory.mktemp("image") / "small.tif"
    pixels = np.zeros((300, 280, 3), np.uint8)
    tifffile.imwrite(path, pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", photometric="rgb")
    return path


@pytest.fixture(scope="module")
def scene(data_dir: Path) -> Path:
    return data_dir / "geo" / "solaris" / "sample_geotiff.tif"


@pytest.fixture(scope="module")
def on_map(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("map")
    run = finished_run(scene, folder / "run", core=256, failed=[(0, 1)], probabilities=True)
    assert export(run, "auto,geojson,geoparquet") == [
        *("statistics", "cog", "geopackage", "qgis", "probabilities-cog", "geojson", "geoparquet")
    ]
    return run
