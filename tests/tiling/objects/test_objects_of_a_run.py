"""Objects of a run: made beside the mask, exported, renewed with it, and whole after a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from cli import on_disk
from exported_runs import export, exported
from finished import finished_run, write_labels
from numpy.typing import NDArray
from object_oracle import objects_of
from pyarrow import parquet

from tiling.geometry import Box
from tiling.objects import blocks, build
from tiling.objects.build import build_objects
from tiling.objects.image import ObjectImage, open_objects
from tiling.objects.record import Built, ask_for_objects, built_objects, check_objects
from tiling.objects.rule import builtin_rule
from tiling.objects.spec import ObjectSpec
from tiling.objects.tree_digest import tree_digest
from tiling.runs.run import Run

SHAPE = (520, 330)
BORDERS = ObjectSpec(rule="border", border=2, radius_px=4, least_px={1: 20}, filled=(1,))


def nuclei(shape: tuple[int, int] = SHAPE, seed: int = 0) -> NDArray[np.uint8]:
    """Discs with a rim of borders, many of them touching, and some specks."""
    random = np.random.default_rng(seed)
    labels_YX = np.zeros(shape, np.uint8)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for cy, cx, radius in zip(
        *(random.uniform(0, side, 150) for side in shape), random.uniform(5, 30, 150), strict=True
    ):
        away = np.hypot(y - cy, x - cx)
        labels_YX[(away < radius) & (labels_YX != 1)] = 2
        labels_YX[away < radius - 3] = 1
    labels_YX[95:105, :10], labels_YX[100, 5] = 0, 1
    return labels_YX


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, and shards in them, also in a small image."""
    monkeypatch.setattr(blocks, "BLOCK_PX", 128)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((*SHAPE, 3), np.uint8), photometric="rgb", tile=(128, 128))
    return path


def with_objects(run: Run, spec: ObjectSpec = BORDERS) -> ObjectImage:
    state = run.ledger.fold(held=True)
    ask_for_objects(run, state, spec)
    return build_objects(run, state, spec, builtin_rule(spec))


def known(run: Run) -> Built:
    found = built_objects(run, run.ledger.fold(held=True))
    assert found is not None
    return found


@pytest.mark.parametrize("core", [64, 256, 1024])
def test_objects_are_those_of_one_array_for_any_core(core: int, image: Path, tmp_path: Path) -> None:
    labels_YX = nuclei()
    run = finished_run(image, tmp_path / "run", labels_YX, core=core, failed=[(1, 0)] if core == 256 else [])
    seen_YX = np.asarray(run.open_mask().levels[0][:])
    expected_YX = objects_of(seen_YX, BORDERS)
    objects = with_objects(run)
    assert objects.count == expected_YX.max() > 20
    np.testing.assert_array_equal(objects.read(Box(0, 0, *SHAPE)), expected_YX)
    np.testing.assert_array_equal(objects.pixels[1:], np.bincount(expected_YX.ravel())[1:])
    assert known(run).specks[1] >= 1
    assert set(objects.classes[1:].tolist()) == {1}
    levels = [np.asarray(array[:]) for array in objects.pyramid.levels]
    assert levels[0].dtype == np.int32
    assert len(levels) == 2
    np.testing.assert_array_equal(levels[1], levels[0][::2, ::2])
    assert check_objects(run, run.ledger.fold(held=True)) is None
    assert {entry.name for entry in run.path.iterdir()} >= {"objects.ome.zarr"}
    assert not {"objects.new.zarr", "objects.scratch"} & {entry.name for entry in run.path.iterdir()}
    joined = b"".join(part.tobytes() for part in (numbers for _, numbers in objects.blocks()))
    assert len(joined) == 4 * SHAPE[0] * SHAPE[1]


def test_the_disk_has_all_files_before_the_ledger_names_them(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, synced, sync = finished_run(image, tmp_path / "run", nuclei()), set[int](), os.fsync

    def seen(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", seen)
    at_place = set[int]()
    monkeypatch.setattr(build, "tree_digest", lambda folder: at_place.update(synced) or tree_digest(folder))
    with_objects(run)
    folder = on_disk(run.objects_path)
    there = [folder, *folder.rglob("*")]
    assert len(there) > 10
    assert {each.stat().st_ino for each in there} <= at_place


def test_a_build_that_is_killed_leaves_what_there_was_and_the_next_is_whole(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(image, tmp_path / "run", nuclei())
    before = with_objects(run).read(Box(0, 0, *SHAPE))
    write_labels(run, nuclei(seed=1))
    expected_YX = objects_of(nuclei(seed=1), BORDERS)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "_put_in_place", killed)
        patch.setattr(build, "sweep_objects", lambda run: None)
        with pytest.raises(KeyboardInterrupt):
            with_objects(run)
    assert (run.path / "objects.new.zarr").is_dir()
    state = run.ledger.fold(held=True)
    assert built_objects(run, state) is None
    assert check_objects(run, state) == "they are not built"
    left = open_objects(run)
    assert left is not None
    np.testing.assert_array_equal(left.read(Box(0, 0, *SHAPE)), before)
    np.testing.assert_array_equal(with_objects(run).read(Box(0, 0, *SHAPE)), expected_YX)
    assert not (run.path / "objects.new.zarr").exists()
    assert known(run).count == expected_YX.max()


@pytest.mark.parametrize("moment", ["delete_tree", "tree_digest"])
def test_a_kill_while_another_rule_s_objects_are_put_in_place_leaves_none(
    moment: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rule is asked for again: what lies there may be of the other."""
    run = finished_run(image, tmp_path / "run", nuclei())
    before = with_objects(run).read(Box(0, 0, *SHAPE))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            with_objects(run, ObjectSpec())
    state = run.ledger.fold(held=True)
    ask_for_objects(run, state, BORDERS)
    assert built_objects(run, state) is None
    assert check_objects(run, state) == "they are not built"
    np.testing.assert_array_equal(with_objects(run).read(Box(0, 0, *SHAPE)), before)


def test_a_file_that_is_altered_is_found(image: Path, tmp_path: Path) -> None:
    run = finished_run(image, tmp_path / "run", nuclei())
    with_objects(run)
    shard = next(
        path for path in sorted((on_disk(run.objects_path) / "0").rglob("*")) if path.is_file() and "c" in path.parts
    )
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    state = run.ledger.fold(held=True)
    assert check_objects(run, state) == "they aren't what was written"


def test_exports_are_of_the_objects(image: Path, tmp_path: Path) -> None:
    run = finished_run(image, tmp_path / "run", nuclei(), failed=[(2, 1)])
    export(run, "geoparquet,statistics,qupath")
    areas = parquet.read_table(exported(run, "objects.parquet")).to_pylist()
    assert "id" not in areas[0]
    objects = with_objects(run)
    # Those that are made of objects are written anew; the mask is the same.
    assert set(export(run, "geoparquet,statistics,qupath")) == {"geoparquet", "statistics", "qupath"}
    assert export(run, "geoparquet,statistics,qupath") == []
    rows = parquet.read_table(exported(run, "objects.parquet")).to_pylist()
    found = {row["id"]: row for row in rows if row["class"] == "nucleus"}
    assert sorted(found) == [*range(1, objects.count + 1)]
    assert [found[number]["pixels"] for number in sorted(found)] == objects.pixels[1:].tolist()
    for row in found.values():
        assert shapely.from_wkb(row["geometry"]).area == row["pixels"]
    assert {row["class"] for row in rows} == {"nucleus", "not predicted"}
    features = json.loads(exported(run, "qupath.geojson").read_text())["features"]
    assert len(features) == len(rows)
    statistics: list[dict[str, Any]] = parquet.read_table(exported(run, "statistics.parquet")).to_pylist()
    labels_YX = np.asarray(run.open_mask().levels[0][:])
    assert [row["pixels"] for row in statistics[1:3]] == [int((labels_YX == label).sum()) for label in (1, 2)]
    assert sum(row["pixels"] for row in statistics) == labels_YX.size
    assert [row["objects"] for row in statistics[:3]] == [None, objects.count, 0]
    assert statistics[1]["specks"] == known(run).specks[1]
    assert statistics[1]["mean_object_pixels"] == objects.pixels[1:].mean()
