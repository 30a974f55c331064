"""Exports of runs in a bucket, behind a real S3 server: the files that the same run on disk is exported to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import tifffile
from cli import Cli, clean_environment, on_disk
from exported_runs import WRITABLE
from finished import blobs, finished_run, write_labels
from object_store import environment_of, faulty_proxy, objects_below, place, s3_server

from flows.config.export import ExportConfig
from flows.run.exports import export_here
from flows.run.steps import export as export_after_rerun
from tiling.errors import StorageError
from tiling.export.formats import FORMATS
from tiling.runs.run import Run
from tiling.storage import connection
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

ALL = ",".join(WRITABLE)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 300 x 280 px somewhere in UTM zone 17."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": 300,
        "width": 280,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:32617",
    }
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(2, 0, 451_000, 0, -2, 3_991_000)) as file:
        file.write(np.zeros((1, 300, 280), np.uint8))
    return path


@pytest.fixture
def image(s3: str, scene: Path) -> ObjectPath:
    place("scene.tif").write_bytes(scene.read_bytes())
    return place("scene.tif")


def export(run: Place, formats: str) -> list[str]:
    return [written.name for written in export_here(ExportConfig(run=run, formats=formats))]


def test_a_run_in_a_bucket_is_exported_to_every_format(image: ObjectPath, scene: Path, tmp_path: Path) -> None:
    bucket = finished_run(image, place("runs/all"), failed=[(0, 1)], probabilities=True)
    disk = finished_run(scene, tmp_path / "run", failed=[(0, 1)], probabilities=True)
    assert export(bucket.path, ALL) == [file for name in WRITABLE for file in FORMATS[name].files]
    export(disk.path, ALL)
    assert isinstance(bucket.exports, ObjectPath)
    put = objects_below(bucket.exports)
    assert sorted(put) == sorted(file.name for file in on_disk(disk.exports).iterdir())
    for name, data in put.items():
        if name != "objects.gpkg":  # holds the time at which it was written
            assert data == (on_disk(disk.exports) / name).read_bytes(), name
    (tmp_path / "objects.gpkg").write_bytes(put["objects.gpkg"])
    _, theirs = pyogrio.read_arrow(tmp_path / "objects.gpkg")
    _, ours = pyogrio.read_arrow(on_disk(disk.exports) / "objects.gpkg")
    assert theirs.equals(ours)
    assert export(bucket.path, ALL) == [], "all of them show the mask"


def test_after_a_rerun_every_export_in_the_bucket_shows_the_mended_mask(image: ObjectPath) -> None:
    labels = blobs((300, 280))
    run = finished_run(image, place("runs/repaired"), labels, failed=[(0, 1)])
    export(run.path, "statistics,cog,ome-tiff")
    run = Run.open(run.path)
    write_labels(run, labels)
    export_after_rerun(run)
    for name in ("mask.tif", "mask.ome.tif"):
        with tempfile.NamedTemporaryFile(suffix=name) as file:
            file.write((run.exports / name).read_bytes())
            file.flush()
            np.testing.assert_array_equal(tifffile.imread(file.name), labels)
    rows = (run.exports / "statistics.csv").read_bytes().decode().splitlines()
    assert rows[-1].startswith("255,not predicted,0,")


def test_a_store_that_fails_leaves_the_earlier_export(
    s3: str, image: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_RETRIES", 2)
    monkeypatch.setattr(connection, "FIRST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(connection, "LONGEST_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = finished_run(image, place("runs/failing"))
    export(run.path, "qupath")
    before = (run.exports / "qupath.geojson").read_bytes()
    run = Run.open(run.path)
    write_labels(run, blobs(run.plan.mask.shape, 8))
    with (
        faulty_proxy(s3, lambda method, path, times: "503" if method == "PUT" and "qupath" in path else None),
        pytest.raises(StorageError, match=r"exports/qupath\.geojson: the store failed"),
    ):
        export(run.path, "qupath")
    assert (run.exports / "qupath.geojson").read_bytes() == before
    assert list(tmp_path.iterdir()) == [], "nothing is left in the folder for temporary files"
    assert export(run.path, "none") == ["qupath.geojson"], "the ledger doesn't call it written"


def test_the_command_exports_a_run_in_a_bucket(s3: str, image: ObjectPath, tmp_path: Path) -> None:
    run = finished_run(image, place("runs/command"))
    ended = Cli(clean_environment(tmp_path, **environment_of(s3))).run(
        "export", run.path, "--format", "geopackage,qupath"
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [f"{run.path}/exports/objects.gpkg", f"{run.path}/exports/qupath.geojson"]
    with tempfile.NamedTemporaryFile(suffix=".gpkg") as file:
        file.write((run.exports / "objects.gpkg").read_bytes())
        file.flush()
        assert pyogrio.read_info(file.name)["features"] > 10
