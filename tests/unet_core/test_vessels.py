"""The shipped bundle `vessels`: its figures are true, and a whole photograph in tiles equals one pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle import segment_here, whole_image_labels

from flows.config.recipe import read_recipe
from flows.training.examples import read_examples
from tiling.geometry import Box
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.training.data import Example
from unet_core.training.evaluation import evaluate
from unet_core.training.recipe import TrainingConfig

RECIPE = Path(__file__).parents[2] / "unet_core" / "recipes" / "vessels.toml"


@pytest.fixture(scope="module")
def vessels() -> Bundle:
    return load_bundle("vessels")


@pytest.fixture(scope="module")
def photographs(data_dir: Path) -> Path:
    return data_dir / "retina" / "CHASEDB1"


@pytest.fixture(scope="module")
def validation(photographs: Path) -> list[Example]:
    """Subjects 06 and 07, as the recipe splits them off."""
    recipe = read_recipe(RECIPE)
    data = recipe.data.model_copy(
        update={"images": photographs, "labels": photographs, "image_names": "Image_0[567]*.jpg"}
    )
    training, validation = read_examples(data, recipe.card)
    assert [example.name for example in training] == ["Image_05L", "Image_05R"]
    assert [example.name for example in validation] == ["Image_06L", "Image_06R", "Image_07L", "Image_07R"]
    return [example.whole() for example in validation]


def test_shipped_vessels_reach_their_figures(vessels: Bundle, validation: list[Example]) -> None:
    score = evaluate(vessels.module, vessels.card, validation)["all"]
    claimed = vessels.card.training["validation"]["all"]
    assert score.images == claimed["images"] == 4
    assert score.mean_dice >= 0.75
    assert score.mean_dice == pytest.approx(claimed["mean_dice"], abs=0.001)
    assert score.mean_iou == pytest.approx(claimed["mean_iou"], abs=0.001)


def test_tiled_photograph_equals_one_pass(
    vessels: Bundle, validation: list[Example], photographs: Path, tmp_path: Path
) -> None:
    whole = whole_image_labels(vessels, validation[0].image_HWN)
    run = segment_here(photographs / "Image_06L.jpg", tmp_path / "run", 256, model="vessels")
    labels = run.open_mask().read(Box(0, 0, *run.plan.extent))
    assert labels.shape == (960, 999)
    assert whole.mean() > 0.04, "a mask of nothing would pass every comparison"
    assert int(np.count_nonzero(labels != whole)) == 0


def test_recipe_is_that_of_the_bundle(vessels: Bundle) -> None:
    recipe = read_recipe(RECIPE)
    label_fields = {"architecture", "parameters", "bands", "dtype", "classes", "decision", "normalization"}
    assert vessels.card.model_dump(include=label_fields) == recipe.card.model_dump(include=label_fields)
    assert TrainingConfig.model_validate(vessels.card.training["config"]) == recipe.training
    assert sum(vessels.card.training["training_images"].values()) == 10
