"""The shipped bundle `water`: its figures are true, and a scene in tiles equals one pass over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle import segment_here, whole_image_labels

from benchmarks.water import colours, measure, near_infrared, water
from flows.config.recipe import read_recipe
from tiling.geometry import Box
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.training.recipe import TrainingConfig

RECIPE = Path(__file__).parents[2] / "unet_core" / "recipes" / "water.toml"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("water")


@pytest.fixture(scope="module")
def scenes(data_dir: Path) -> Path:
    return data_dir / "geo" / "naip"


def test_water_reaches_its_figures_on_years_it_did_not_learn(bundle: Bundle, scenes: Path, tmp_path: Path) -> None:
    for year in ("20100629", "20170827"):
        (tmp_path / f"scene_{year}.tif").symlink_to(scenes / f"m_4709963_se_14_1_{year}.tif")
    figures = measure(bundle, tmp_path)
    claimed = bundle.card.training["validation"]["all"]
    assert figures["2010"]["iou"] == pytest.approx(claimed["mean_iou"], abs=0.001)
    assert figures["2017"]["iou"] == pytest.approx(bundle.card.training["reported"]["2017"]["mean_iou"], abs=0.001)
    assert figures["2017"]["iou"] > 0.85


def test_water_in_tiles_is_that_of_one_pass(bundle: Bundle, scenes: Path, tmp_path: Path) -> None:
    scene = scenes / "m_4709963_se_14_1_20170827.tif"
    whole_HW = whole_image_labels(bundle, colours(scene))
    run = segment_here(scene, tmp_path / "run", 256, model="water")
    labels_HW = run.open_mask().read(Box(0, 0, *run.plan.extent))
    truth_HW = water(near_infrared(scene))
    assert int(np.count_nonzero(labels_HW != whole_HW)) == 0
    assert 0.8 < labels_HW.sum() / truth_HW.sum() < 1.25, "a mask of nothing would pass every comparison"


def test_the_recipe_is_that_of_the_bundle(bundle: Bundle) -> None:
    recipe = read_recipe(RECIPE)
    fields = {"architecture", "parameters", "bands", "dtype", "classes", "decision", "normalization", "pixel_size_um"}
    assert bundle.card.model_dump(include=fields) == recipe.card.model_dump(include=fields)
    assert TrainingConfig.model_validate(bundle.card.training["config"]) == recipe.training
