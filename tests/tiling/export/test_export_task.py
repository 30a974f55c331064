"""Exports as work for other processes: it pickles, opens the run for itself, and writes what the driver would."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exported_runs import WRITABLE
from finished import finished_run, numbered
from tiny import write_noise_map

from tiling.export.export_run import export_run
from tiling.export.export_task import parts_of, sweep_half_written
from tiling.export.formats import FORMATS
from tiling.runs.run import Run
from tiling.storage.disk import partial_of


def in_another(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """As if in another process: nothing gets there but what pickles, nor back."""
    for item in items:
        there, given = pickle.loads(pickle.dumps((work, item)))
        yield pickle.loads(pickle.dumps(there(given)))


def test_every_format_of_a_map_is_the_same_by_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OGR_CURRENT_DATE", "2026-01-01T00:00:00.000Z")  # GDAL writes it into a GeoPackage
    scene = write_noise_map(tmp_path / "scene.tif", 300, 280)
    files: list[dict[str, bytes]] = []
    for name, tasks in (("here", None), ("tasks", in_another)):
        run = finished_run(scene, tmp_path / name, failed=[(0, 1)], probabilities=True)
        numbered(run)
        names = [each for each in WRITABLE if each not in ("anndata", "stac")]
        with run.open_source() as source:
            assert [each.name for each in export_run(run, source, ",".join(names), tasks=tasks)] == names
            assert export_run(run, source, ",".join(names), tasks=tasks) == []
        files.append(files_of(run))
    assert files[0].keys() == files[1].keys()
    assert [name for name in files[0] if files[0][name] != files[1][name]] == []


def files_of(run: Run) -> dict[str, bytes]:
    assert isinstance(run.exports, Path)
    return {path.name: path.read_bytes() for path in sorted(run.exports.glob("*"))}


def test_formats_of_objects_are_one_task_and_every_other_its_own() -> None:
    chosen = [FORMATS[name] for name in ("statistics", "ome-tiff", "qupath", "thumbnail")]
    assert parts_of(chosen) == [("statistics", "qupath"), ("ome-tiff",), ("thumbnail",)]
    assert parts_of([FORMATS["cog"]]) == [("cog",)]


def test_of_half_written_files_only_those_of_a_tasks_own_formats_go(tmp_path: Path) -> None:
    names = ["mask.tif", "mask.ome.tif", "mask.qml", "objects.qml", "objects.gpkg", "statistics.csv", "objects", "rows"]
    begun = {name: partial_of(tmp_path / name, Path(name).suffix) for name in names}
    begun["of a COG"] = partial_of(begun["mask.tif"], ".tif")
    begun["beside it"] = begun["of a COG"].with_name(f"{begun['of a COG'].name}.aux.xml")
    foreign = [tmp_path / name for name in ("mask.tif", ".mask.partial.tif", "mask.partial")]

    def left_by(*formats: str) -> set[str]:
        for file in (*begun.values(), *foreign):
            file.touch()
        sweep_half_written(tmp_path, [FORMATS[name] for name in formats])
        assert all(file.exists() for file in foreign)
        return {name for name, file in begun.items() if not file.exists()}

    assert left_by("cog") == {"mask.tif", "of a COG", "beside it"}
    assert left_by("qgis") == {"mask.qml", "objects.qml"}
    assert left_by("ome-tiff") == {"mask.ome.tif"}
    assert left_by("statistics") == {"statistics.csv", "objects", "rows"}
    assert left_by("geopackage", "qgis") == {"mask.qml", "objects.qml", "objects.gpkg", "objects", "rows"}
