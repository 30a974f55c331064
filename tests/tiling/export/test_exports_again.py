"""Repeated exports write only what was asked for and is out of date, and nothing where it can not be right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from exported_runs import export, exported
from finished import blobs, finished_run, labels_of, write_labels
from pyarrow import csv

from benchmarks.exported import VECTORS, compare
from flows.config.export import ExportConfig
from flows.errors import ConfigError
from flows.run.exports import export_here
from flows.run.steps import export as export_stage
from flows.run.steps import stitch
from tiling.errors import ExportError
from tiling.export.formats import FORMATS
from tiling.runs.ledger import TileRecord, TileState
from tiling.storage.place import place_of


def times(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in sorted(folder.rglob("*")) if f.is_file()}


def test_what_a_format_cannot_say_is_refused_before_anything_is_written(small: Path, tmp_path: Path) -> None:
    run = finished_run(small, tmp_path / "run")
    hints = {"cog": "ome-tiff", "geojson": "qupath", "geopackage": "qupath", "probabilities-cog": "--probabilities"}
    for name, hint in hints.items():
        with pytest.raises(ExportError, match=hint):
            export(run, f"statistics,{name}")
    assert not exported(run, "statistics.csv").exists()
    message = "^--format: 'shapefile' is no format; give none, auto, or names of statistics, ome-tiff"
    with pytest.raises(ConfigError, match=message) as refused:
        ExportConfig(run=run.path, formats="shapefile")
    assert "\n" not in str(refused.value)


def test_only_what_no_longer_shows_the_mask_is_written_again(small: Path, tmp_path: Path) -> None:
    labels = blobs((300, 280), 3)
    run = finished_run(small, tmp_path / "run", labels)
    assert export(run, "qupath,statistics") == ["qupath", "statistics"]
    before = times(tmp_path / "run" / "exports")
    assert export(run, "auto") == ["ome-tiff"]
    write_labels(run, labels)
    assert export(run, "none") == [], "tiles were computed again, and are what they were"
    after = times(tmp_path / "run" / "exports")
    assert before.items() <= after.items()
    labels[5:9, 5:9] = 2
    write_labels(run, labels)
    assert export(run, "none") == ["statistics", "ome-tiff", "qupath"]
    np.testing.assert_array_equal(tifffile.imread(exported(run, "mask.ome.tif")), labels)
    exported(run, "statistics.csv").unlink()
    assert export(run, "none") == ["statistics"]


def test_after_a_rerun_no_export_is_stale_and_no_other_shard_is_touched(scene: Path, tmp_path: Path) -> None:
    labels = np.kron(blobs((90, 90), 5), np.ones((10, 10), np.uint8))
    run = finished_run(scene, tmp_path / "run", labels, core=256, failed=[(0, 1)])
    names = ["statistics", "ome-tiff", "cog", *VECTORS]
    assert export(run, ",".join(names)) == names
    before = times(tmp_path / "run" / "mask.ome.zarr")
    tile = run.plan.at(0, 1)
    digest = run.open_mask().write(tile, np.ascontiguousarray(labels[tile.valid.slices]))
    run.ledger.append(TileRecord(tile.index, TileState.DONE, 2, digest))
    run.ledger.flush()
    stitch(run)
    export_stage(run)  # as a rerun calls it: no format is asked for
    after = times(tmp_path / "run" / "mask.ome.zarr")
    assert {file for file in after if before.get(file) != after[file]} == {"0/c/0/1", "1/c/0/0"}
    np.testing.assert_array_equal(labels_of(run), labels)
    np.testing.assert_array_equal(tifffile.imread(exported(run, "mask.ome.tif")), labels)
    with rasterio.open(exported(run, "mask.tif")) as cog:
        np.testing.assert_array_equal(cog.read(1), labels)
    for name in VECTORS:
        assert compare(run, name)["differing"] == 0, name
    rows = csv.read_csv(exported(run, "statistics.csv"))
    assert rows.column("pixels").to_pylist()[-1] == 0, "nothing is left unpredicted"


def test_an_unfinished_run_is_not_exported(small: Path, tmp_path: Path) -> None:
    run = finished_run(small, tmp_path / "run")
    for segment in sorted((tmp_path / "run" / "ledger").glob("*.jsonl"))[-1:]:
        segment.unlink()
    with pytest.raises(ExportError, match="not finished"):
        export(run, "statistics")


def test_the_command_writes_what_the_list_says(small: Path, tmp_path: Path) -> None:
    run = finished_run(small, tmp_path / "run")
    written = export_here(ExportConfig(run=place_of(str(run.path)), formats="statistics,qupath"))
    assert [place.name for place in written] == [*FORMATS["statistics"].files, *FORMATS["qupath"].files]
    assert [place.name for place in export_here(ExportConfig(run=run.path))] == ["mask.ome.tif"]
    assert export_here(ExportConfig(run=run.path)) == []
