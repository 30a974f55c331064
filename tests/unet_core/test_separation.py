"""Objects told apart by a class of their borders: what is border, how seeds grow, and that a training learns it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discs import CARD, a_config, a_trainer, discs

from unet_core.bundles.bundle import load_bundle
from unet_core.bundles.card import ModelCard
from unet_core.errors import BundleError, TrainingError
from unet_core.training.augmentation import CropSampler
from unet_core.training.evaluation import evaluate
from unet_core.training.instances import components, match_objects
from unet_core.training.recipe import Separation, Variation
from unet_core.training.separation import grown, separated
from unet_core.training.trainer import Trainer

THREE: dict[str, Any] = {
    "classes": [
        {"name": "background", "color": "#000000"},
        {"name": "disc", "color": "#56b4e9"},
        {"name": "border", "color": "#e69f00"},
    ],
    "parameters": {**CARD.parameters, "classes": 3},
    "decision": {"rule": "argmax"},
}
SEPARATING = ModelCard.model_validate({**CARD.model_dump(), **THREE})
HOW: dict[str, Any] = {"separate": Separation(), "loss": "dice_cross_entropy", "border": {"w0": 2, "sigma": 3}}


def by_hand(instances_HW: np.ndarray[Any, Any], outline_px: int, touching_px: int) -> np.ndarray[Any, Any]:
    labels_HW = np.zeros(instances_HW.shape, np.int64)
    for y, x in np.argwhere(instances_HW > 0):
        own = instances_HW[y, x]

        def around(reach: int, y: int = y, x: int = x) -> np.ndarray[Any, Any]:
            return instances_HW[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]

        others = around(touching_px)
        is_border = (around(outline_px) != own).any() or ((others != own) & (others > 0)).any()
        labels_HW[y, x] = 2 if is_border else 1
    return labels_HW


@pytest.mark.parametrize(("outline_px", "touching_px"), [(1, 2), (0, 2), (2, 0), (1, 1), (0, 5)])
def test_border_is_what_lies_near_another_object_or_the_ground(outline_px: int, touching_px: int) -> None:
    random = np.random.default_rng(outline_px + 8 * touching_px)
    for density in (2, 12):
        seeds_HW = random.integers(1, 9000, (40, 47)) * (random.random((40, 47)) < density / 400)
        instances_HW = torch.nn.functional.max_pool2d(torch.tensor(seeds_HW)[None].float(), 5, 1, 2)[0].long()
        labels_HW = separated(instances_HW, outline_px, touching_px)
        assert np.array_equal(labels_HW.numpy(), by_hand(instances_HW.numpy(), outline_px, touching_px))


def test_objects_grow_back_from_their_interiors() -> None:
    y, x = np.mgrid[:64, :64]
    instances_HW = np.zeros((64, 64), np.int32)
    for number, (cy, cx) in enumerate(((20, 16), (20, 33), (38, 24), (50, 52)), start=1):
        instances_HW[(instances_HW == 0) & ((y - cy) ** 2 + (x - cx) ** 2 < 81)] = number
    labels_HW = separated(torch.from_numpy(instances_HW), 1, 2).numpy()
    assert (labels_HW[instances_HW > 0] > 0).all()
    found = match_objects(instances_HW, grown(labels_HW, 4))
    assert found.found[0] == 4
    assert found.found[-2] == 4  # at an intersection over union of 0.9
    assert match_objects(instances_HW, (labels_HW > 0).astype(np.int32)).found[0] == 0


def test_seeds_grow_into_borders_no_farther_than_their_reach() -> None:
    labels_HW = np.zeros((9, 40), np.uint8)
    labels_HW[4, :30] = 2
    labels_HW[4, 3:6] = 1
    labels_HW[4, 20] = 1
    labels_HW[7, 35:39] = 2  # no seed reaches it
    objects_HW = grown(labels_HW, 4)
    assert [np.flatnonzero(objects_HW[4] == number).tolist() for number in (1, 2)] == [
        list(range(10)),
        list(range(16, 25)),
    ]
    assert not objects_HW[7].any()
    assert np.unique(grown(labels_HW, 4, least_px=10)).tolist() == [0, 1], "objects are measured as they are grown"
    assert not grown(np.zeros((3, 3), np.uint8), 4).any()


def by_every_pixel(labels_HW: np.ndarray[Any, Any], reach_px: int) -> np.ndarray[Any, Any]:
    """The rule as it is documented: all seeds step at once, and the one whose first pixel comes first wins."""
    objects_HW = components(labels_HW, 1)
    for _ in range(reach_px):
        before_HW = objects_HW.copy()
        for y, x in np.argwhere((before_HW == 0) & (labels_HW == 2)):
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            within = [at for at in near if 0 <= at[0] < labels_HW.shape[0] and 0 <= at[1] < labels_HW.shape[1]]
            objects_HW[y, x] = min((before_HW[at] for at in within if before_HW[at]), default=0)
    return objects_HW


@pytest.mark.parametrize("seed", range(6))
def test_where_seeds_meet_the_first_by_rows_wins(seed: int) -> None:
    labels_HW = np.random.default_rng(seed).choice(3, (24, 31), p=(0.2, 0.1, 0.7)).astype(np.uint8)
    assert np.array_equal(grown(labels_HW, 3), by_every_pixel(labels_HW, 3))


def test_holes_that_one_object_encloses_are_filled() -> None:
    labels_HW = np.zeros((12, 30), np.uint8)
    labels_HW[1:8, 1:8] = 1
    labels_HW[3:5, 3:5] = 0  # a hole
    labels_HW[1:8, 12:19] = 1
    labels_HW[3, 12:15] = 0  # a bay
    labels_HW[9:, 20:] = 1
    labels_HW[11, 24] = 0  # at the edge of the image: nobody knows
    objects_HW = grown(labels_HW, 1, fills_holes=True)
    assert (objects_HW[3:5, 3:5] == 1).all()
    assert not objects_HW[3, 12:15].any()
    assert objects_HW[11, 24] == 0
    assert grown(labels_HW, 1)[3, 3] == 0


def test_crops_hold_borders_as_wide_as_asked_at_any_scale() -> None:
    for scale in (0.5, 2.0):
        config = a_config(groups={"all": Variation(scale=(scale, scale))}, separate=Separation(), tile_px=64)
        crop = CropSampler(config, discs(4, seed=3), 255.0).batch(0)
        assert set(crop.labels_HW.unique().tolist()) == {0, 1, 2}
        inside_NHW = (crop.labels_HW > 0).float()[:, None]
        eroded_NHW = -torch.nn.functional.max_pool2d(-inside_NHW, 3, 1, 1)
        assert not (eroded_NHW[:, 0] < inside_NHW[:, 0])[crop.labels_HW == 1].any()


def test_training_learns_to_part_objects_and_scores_them_whole(tmp_path: Path) -> None:
    changes = {**HOW, "steps": 120, "validate_every": 60}
    progress = a_trainer(tmp_path, SEPARATING, **changes).run()
    assert progress.best_iou > 0.75
    bundle = load_bundle(tmp_path / "bundle")
    score = evaluate(bundle.module, bundle.card, discs(4, seed=2), separates=True)["all"]
    assert score.mean_iou == progress.best_iou
    assert score.ap50 > 0.5


def test_training_starts_from_the_weights_of_a_bundle(tmp_path: Path) -> None:
    a_trainer(tmp_path / "first").run(20)
    begun = a_trainer(tmp_path / "second", start=tmp_path / "first" / "bundle").learner
    first = load_bundle(tmp_path / "first" / "bundle").module.state_dict()
    for name, tensor in begun.average.state_dict().items():
        assert torch.equal(tensor, first[name]), name
    with pytest.raises(BundleError, match="start from a bundle with the card's architecture and parameters"):
        a_trainer(tmp_path / "third", SEPARATING, **HOW, start=tmp_path / "first" / "bundle")


def test_what_can_not_be_separated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"separate makes three classes.*the card has 2"):
        a_trainer(tmp_path, separate=Separation())
    nameless = [replace(example, instances_HW=None) for example in discs(2, seed=1)]
    with pytest.raises(TrainingError, match="labels of 0 name classes only: give instance labels"):
        Trainer(a_config(**HOW), SEPARATING, nameless, nameless, tmp_path)
    with pytest.raises(ValueError, match="there would be no border"):
        Separation(outline_px=0, touching_px=0)
