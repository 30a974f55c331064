"""Objects of a slide of 16,384 x 16,384 px: those of one array for every core, and after kills, resumes and a rerun."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from cli import OVERTILE, Cli
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import ndimage
from torch import nn
from torch.export import Dim

from benchmarks.slide import write_slide
from tiling.geometry import Box
from tiling.objects.image import open_objects
from tiling.runs.run import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

SIDE = int(os.environ.get("OVERTILE_OBJECTS_SIDE", "16384"))
CORES = (256, 512, 1024)
BOX_PX, RIM, INSIDE = 5, 170, 150
RADIUS_PX, LEAST_PX = 4, 20
RULE = {
    "rule": "border",
    "border": "rim",
    "radius_px": RADIUS_PX,
    "least_px": {"dark": LEAST_PX},
    "fill_holes": ["dark"],
}
CARD = """
name = "dark"
bands = ["red", "green", "blue"]
classes = ["background", "dark", "rim"]
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
"""
TABLE, SHAPES = "objects-table.parquet", "objects.parquet"
NOBODY = np.iinfo(np.int32).max


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "slide.tif", SIDE)


@pytest.fixture(scope="module")
def model(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that finds what is dark in red, by sums of whole numbers: they round nowhere, whatever the core."""
    folder = tmp_path_factory.mktemp("model")
    network = nn.Conv2d(3, 3, BOX_PX, padding=BOX_PX // 2)
    weights = torch.zeros(3, 3, BOX_PX, BOX_PX)
    weights[1, 0], weights[2, 0] = -2, -1
    network.weight = nn.Parameter(weights)
    network.bias = nn.Parameter(torch.tensor([0.0, RIM + INSIDE, RIM]) * BOX_PX**2)
    extents = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    program = torch.export.export(network.eval(), (torch.zeros(2, 3, 64, 96),), dynamic_shapes=(extents,))
    torch.export.save(program, folder / "dark.pt2")
    (folder / "dark.toml").write_text(CARD)
    said = ("--card", folder / "dark.toml", "--out", folder / "dark")
    imported = cli.run("models", "import", folder / "dark.pt2", *said)
    assert imported.code == 0, imported.err
    card = folder / "dark" / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"objects": RULE}))
    return folder / "dark"


def test_objects_are_those_of_one_array_for_every_core_and_after_kills_and_a_rerun(
    cli: Cli, slide: Path, model: Path, tmp_path: Path
) -> None:
    commands = {core: command(slide, model, tmp_path / str(core), core) for core in CORES}
    for each in commands.values():
        ended = cli.run(*each, timeout=3600)
        assert ended.code == 0, ended.err
    first, *others = (tmp_path / str(core) for core in CORES)
    labels_YX = np.asarray(Run.open(first).open_mask(read_only=True).levels[0][:])
    expected_YX = of_one_array(labels_YX)
    del labels_YX
    assert expected_YX.max() > SIDE**2 // 100_000
    for run in (first, *others):
        expect(run, expected_YX)
    expect_rows(first, expected_YX)
    for run in others:
        assert files(run) == files(first), "byte for byte"
    # Other objects are asked for and the first ones again; each time the driver is killed, early and late.
    run, asked = others[-1], commands[CORES[-1]]
    for more in (("--objects", "components"), ()):
        for name in ("objects.scratch", "objects.new.zarr"):
            kill_when(partial(is_written, run / name), cli, (*asked, *more))
        for name in (TABLE, SHAPES):
            kill_when(partial(is_partly_there, run / "exports" / name), cli, (*asked, *more))
        ended = cli.run(*asked, *more, timeout=3600)
        assert ended.code == 0, ended.err
    expect(run, expected_YX)
    assert files(run) == files(first)
    ended = cli.run("rerun", run, "--tile", "3,2", timeout=3600)
    assert ended.code == 0, ended.err
    expect(run, expected_YX)
    assert files(run) == files(first)
    assert cli.run("verify", run, "--tiles", 2, "--seams", 2, timeout=3600).code == 0


def command(slide: Path, model: Path, out: Path, core: int) -> tuple[object, ...]:
    exact = ("--foreground", "none", "--precision", "float32")
    return "segment", slide, "--model", model, "--out", out, "--core", core, *exact, "--export", "table,geoparquet"


def of_one_array(labels_YX: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The number of each pixel's object, as docs/objects.md words it, with no block and no seam."""
    seeds_YX = np.zeros(labels_YX.shape, np.int32)
    count = int(cast("int", ndimage.label(labels_YX == 1, output=seeds_YX)))
    at = np.flatnonzero(seeds_YX)[::-1]
    first = np.zeros(count, np.int64)
    first[seeds_YX.flat[at] - 1] = at
    assert (np.diff(first) > 0).all(), "by their first pixels"
    # With nobody's pixels around, no side of the image is a special case.
    objects = np.pad(seeds_YX, 1)
    del seeds_YX, at
    flat, width = objects.reshape(-1), objects.shape[1]
    beside = np.array([[-width], [-1], [1], [width]])
    free = np.flatnonzero(np.pad(labels_YX == 2, 1))
    for _ in range(RADIUS_PX):
        around = flat[free + beside]
        nearest = np.where(around > 0, around, NOBODY).min(axis=0)
        flat[free[nearest < NOBODY]] = nearest[nearest < NOBODY]
        free = free[nearest == NOBODY]
    _fill_holes(objects)
    sizes = np.bincount(flat, minlength=count + 1)
    is_kept = sizes >= LEAST_PX
    is_kept[0] = False
    ranks = np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)
    return ranks[objects[1:-1, 1:-1]]


def _fill_holes(objects: NDArray[np.int32]) -> None:
    """Give what touches one object alone to that, but for what lies around all."""
    areas = np.zeros(objects.shape, np.int32)
    count = int(cast("int", ndimage.label(objects == 0, output=areas)))
    least, most = np.full(count + 1, NOBODY, np.int32), np.zeros(count + 1, np.int32)
    for axis in (0, 1):
        for here, there in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            free, taken = (np.moveaxis(each, axis, 0) for each in (areas, objects))
            touching = (free[here] > 0) & (taken[there] > 0)
            np.minimum.at(least, free[here][touching], taken[there][touching])
            np.maximum.at(most, free[here][touching], taken[there][touching])
    owner = np.where(least == most, most, 0)
    owner[[0, areas[0, 0]]] = 0
    np.add(objects, owner[areas], out=objects)


def expect(run: Path, expected_YX: NDArray[np.int32]) -> None:
    """Compare in strips: two such arrays at a time are enough."""
    objects = open_objects(Run.open(run))
    assert objects is not None
    assert objects.count == expected_YX.max()
    for y0 in range(0, SIDE, 1024):
        box = Box(y0, 0, min(SIDE, y0 + 1024), SIDE)
        np.testing.assert_array_equal(objects.read(box), expected_YX[box.slices])


def expect_rows(run: Path, expected_YX: NDArray[np.int32]) -> None:
    """Compare the table's areas and boxes with those of the array, and its rows with the polygons'."""
    rows = parquet.read_table(run / "exports" / TABLE).sort_by("id")
    shapes = parquet.read_table(run / "exports" / SHAPES, columns=["id"]).sort_by("id")
    ids = np.arange(1, expected_YX.max() + 1)
    np.testing.assert_array_equal(rows["id"].to_numpy(), ids)
    np.testing.assert_array_equal(shapes["id"].to_numpy(), ids)
    np.testing.assert_array_equal(rows["pixels"].to_numpy(), np.bincount(expected_YX.reshape(-1))[1:])
    boxes = np.array([[y.start, x.start, y.stop, x.stop] for y, x in ndimage.find_objects(expected_YX)])
    for place, name in enumerate(("box_y0", "box_x0", "box_y1", "box_x1")):
        np.testing.assert_array_equal(rows[name].to_numpy(), boxes[:, place])


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / "exports" / name).read_bytes() for name in (TABLE, SHAPES)}


def is_written(folder: Path, since: float) -> bool:
    return any(path.is_file() and path.stat().st_mtime > since for path in folder.rglob("*"))


def is_partly_there(file: Path, since: float) -> bool:
    partial_files = (path.stat() for path in file.parent.glob(f".{file.stem}.*.partial{file.suffix}"))
    return any(found.st_size > 0 and found.st_mtime > since for found in partial_files)


def kill_when(reached: Callable[[float], bool], cli: Cli, asked: tuple[object, ...]) -> None:
    """Begin a command and kill its driver as soon as it has reached something, whatever an earlier one has left."""
    since = time.time()
    driver = subprocess.Popen([str(OVERTILE), *map(str, asked)], env=cli.environment, stdout=subprocess.DEVNULL)
    try:
        while not _holds(partial(reached, since)):
            assert driver.poll() is None, "never reached"
            time.sleep(0.002)
    finally:
        driver.kill()
        driver.wait(60)


def _holds(reached: Callable[[], bool]) -> bool:
    try:
        return reached()
    except FileNotFoundError:  # it was renamed while one looked
        return False
