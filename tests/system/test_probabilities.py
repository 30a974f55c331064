"""8-bit probabilities beside the mask: the network's own, exact across tiles, as an image that others open."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import zarr
from cli import on_disk, write_tissue
from oracle import segment_here, whole_image_logits

from flows.run.steps import stitch
from flows.worker.tile_worker import TileWorker
from tiling.runs.probabilities import mean
from tiling.runs.run import Run
from tiling.source import open_source
from unet_core.bundles.bundle import load_bundle


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("probabilities")
    image = write_tissue(folder / "tissue.tif", 700, 600)
    made = segment_here(image, folder / "run", 128, probabilities=True)
    stitch(made)
    return made


def written(run: Run, level: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    found = run.open_probabilities(read_only=True)
    assert found is not None
    return np.asarray(found.pyramid.levels[level][:])


def test_they_are_those_of_one_pass_over_the_whole_image(run: Run) -> None:
    with open_source(run.card.image.path) as source:
        pixels = source.read(0, source.levels[0].box)
    expected = torch.sigmoid(whole_image_logits(load_bundle("nuclei-small"), pixels)).numpy() * 255
    found = written(run)
    assert found.shape == (1, 700, 600)
    assert np.abs(found - expected).max() <= 0.51, "rounding to 8 bits moves them by half a step at most"
    assert found.std() > 10


def test_the_mask_says_the_same(run: Run) -> None:
    mask = np.asarray(run.open_mask(read_only=True).levels[0][:])
    found = written(run)[0]
    assert (mask[found > 128] == 1).all()
    assert (mask[found < 127] == 0).all()


def test_their_pyramid_takes_the_mean(run: Run) -> None:
    found = run.open_probabilities(read_only=True)
    assert found is not None
    levels = [written(run, level) for level in range(len(found.pyramid.levels))]
    assert len(levels) == 2
    assert all(np.array_equal(coarser, mean(finer)) for finer, coarser in pairwise(levels))
    assert mean(np.array([[[0, 1], [255, 255]]], np.uint8)).tolist() == [[[128]]]
    assert mean(np.array([[[7]]], np.uint8)).tolist() == [[[7]]]


def test_a_public_validator_takes_them_for_an_image(run: Run) -> None:
    validator = pytest.importorskip("ome_zarr_models.v05", reason="ome-zarr-models has no release for this Python")
    group = zarr.open_group(run.probabilities_path, mode="r")
    image = validator.Image.from_zarr(group)
    assert [axis.name for axis in image.ome_attributes.multiscales[0].axes] == ["c", "y", "x"]
    ome = cast("dict[str, Any]", group.attrs["ome"])
    assert [channel["label"] for channel in ome["omero"]["channels"]] == ["nucleus"]


def test_rerun_rewrites_the_shards_of_its_tile_only(run: Run) -> None:
    before = {p: p.stat().st_mtime_ns for p in on_disk(run.probabilities_path).rglob("*") if p.is_file()}
    tile = run.plan.at(2, 3)
    TileWorker().process(run.path, tile.index, staged=False)
    changed = {p for p in before if p.stat().st_mtime_ns != before[p]}
    assert changed == {run.probabilities_path / "0" / "c" / "0" / "2" / "3"}


def test_a_run_without_them_has_none(tmp_path: Path) -> None:
    plain = segment_here(write_tissue(tmp_path / "tissue.tif", 130, 130), tmp_path / "run", 128)
    assert plain.open_probabilities() is None
    assert not plain.probabilities_path.exists()
