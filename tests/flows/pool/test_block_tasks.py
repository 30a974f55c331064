"""Blocks of objects as Ray tasks: the same objects, and a worker that is killed costs nothing but its time."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from finished import finished_run, numbered
from numpy.typing import NDArray

from flows.pool.pool import Pool
from flows.run.steps import find_objects
from tiling.geometry import Box
from tiling.objects.image import open_objects
from tiling.objects.record import ask_for_objects, check_objects
from tiling.objects.spec import ObjectSpec
from tiling.runs.run import Run

SIDE_PX = 8192
RULE = ObjectSpec(rule="border", border=2, radius_px=4, least_px={1: 20}, filled=(1,))


def discs() -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    labels_YX = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for y, x, radius in zip(*random.integers(60, SIDE_PX - 60, (2, 2000)), random.integers(8, 50, 2000), strict=True):
        rows, cols = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        away, place = np.hypot(rows, cols), labels_YX[y - radius : y + radius + 1, x - radius : x + radius + 1]
        place[(away < radius) & (place == 0)] = 2
        place[(away < radius - 3) & (away > radius / 3)] = 1
    return labels_YX


def numbers_of(run: Run) -> NDArray[np.int32]:
    found = open_objects(run)
    assert found is not None
    return found.read(Box(0, 0, *found.shape))


class Killing(threading.Thread):
    """Kills the first process that works on blocks."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.killed: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not (self.killed or self.over.is_set()):
            for each in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "_worked_on" in " ".join(each.cmdline()):
                        each.kill()
                        self.killed.append(each.pid)
                        break
            time.sleep(0.01)


@pytest.mark.slow
def test_tasks_number_the_same_objects_and_a_killed_worker_is_made_good(tmp_path: Path) -> None:
    """In a process of its own: Ray keeps the first token that a process has, and other tests have others."""
    process = multiprocessing.get_context("spawn").Process(target=number_and_kill, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0


def number_and_kill(folder: Path) -> None:
    for name in [each for each in os.environ if each.startswith("RAY_AUTH")]:
        del os.environ[name]
    image = folder / "image.tif"
    empty = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    tifffile.imwrite(image, empty, tile=(2048, 2048), compression="deflate")
    run = finished_run(image, folder / "run", discs(), core=2048)
    here = numbered(run, RULE)
    expected_YX, pixels = here.read(Box(0, 0, SIDE_PX, SIDE_PX)), here.pixels
    assert here.count > 500
    state = run.ledger.fold(held=True)
    ask_for_objects(run, state, ObjectSpec())
    with Pool(2) as pool:
        find_objects(run, state, each=pool.on_blocks)  # by another rule, so that there is something to do again
        ask_for_objects(run, state, RULE)
        killing = Killing()
        killing.start()
        find_objects(run, state, each=pool.on_blocks)
        killing.over.set()
        killing.join()
    assert len(killing.killed) == 1
    np.testing.assert_array_equal(numbers_of(run), expected_YX)
    found = open_objects(run)
    assert found is not None
    np.testing.assert_array_equal(found.pixels, pixels)
    assert check_objects(run, run.ledger.fold(held=True)) is None
    assert sorted(each.name for each in Path(str(run.path)).glob("objects*")) == ["objects.ome.zarr"]
