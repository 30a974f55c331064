"""Objects of a real slide are the same for every core, and those of the whole slide in one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from finished import finished_run
from numpy.typing import NDArray
from object_oracle import objects_of
from oracle import segment_here
from scipy import ndimage

from tiling.geometry import Box
from tiling.objects.build import build_objects
from tiling.objects.record import ask_for_objects
from tiling.objects.rule import builtin_rule
from tiling.objects.spec import ObjectSpec

SLIDE = "slides/CMU-1-Small-Region.svs"
CORES = (256, 512, 1024)
AREAS = ObjectSpec(least_px={1: 20}, filled=(1,))
BORDERS = ObjectSpec(rule="border", border=2, radius_px=4, least_px={1: 20}, filled=(1,))


@pytest.fixture(scope="module")
def labels(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """The shipped model's nuclei."""
    run = segment_here(data_dir / SLIDE, tmp_path_factory.mktemp("slide") / "run", 512)
    return np.asarray(run.open_mask(read_only=True).levels[0][:])


@pytest.mark.slow
@pytest.mark.parametrize("spec", [AREAS, BORDERS], ids=["components", "border"])
def test_objects_are_those_of_one_array_for_every_core(
    spec: ObjectSpec, labels: NDArray[np.uint8], data_dir: Path, tmp_path: Path
) -> None:
    seen_YX = labels
    if spec.rule == "border":  # a rim of two pixels, as a model of interiors and borders gives it
        inner_YX = ndimage.binary_erosion(labels == 1, iterations=2)
        seen_YX = np.where(inner_YX, 1, np.where(labels == 1, 2, labels)).astype(np.uint8)
    expected_YX = objects_of(seen_YX, spec)
    assert expected_YX.max() > 500
    for core in CORES:
        run = finished_run(data_dir / SLIDE, tmp_path / str(core), seen_YX, core=core)
        state = run.ledger.fold(held=True)
        ask_for_objects(run, state, spec)
        objects = build_objects(run, state, spec, builtin_rule(spec))
        np.testing.assert_array_equal(objects.read(Box(0, 0, *seen_YX.shape)), expected_YX)
        np.testing.assert_array_equal(objects.pixels[1:], np.bincount(expected_YX.ravel())[1:])
