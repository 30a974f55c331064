"""Variations of crops: each keeps shape and type, follows from its generator and moves no label from its pixel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discs import a_config, a_trainer
from PIL import Image
from pydantic import ValidationError

from benchmarks.robustness import CHANGES, stained
from flows.config.recipe import DataConfig, read_recipe
from flows.training.examples import read_examples, read_held_back
from unet_core.training.augmentation import draw_crop
from unet_core.training.clutter import clutter
from unet_core.training.data import Example, in_choice, in_validation
from unet_core.training.jpeg import jpeg
from unet_core.training.recipe import Variation
from unet_core.training.synthetic import tissue

RECIPES = Path(__file__).parents[2] / "unet_core" / "recipes"
LATER = ("wash", "clutter", "band_gain", "band_gamma", "turn_hue", "grey", "invert", "jpeg", "plain")


def some_tissue(seed: int = 0) -> Example:
    image_HWN, instances_HW = tissue(96, 96, np.random.default_rng(seed))
    return Example("tissue", image_HWN, (instances_HW > 0).astype(np.uint8), instances_HW=instances_HW)


@pytest.mark.parametrize(
    "changes",
    [
        {"wash": 1.0},
        {"clutter": 1.0},
        {"band_gain": 0.5},
        {"band_gamma": 0.5},
        {"turn_hue": 90},
        {"grey": 1.0},
        {"invert": 1.0},
        {"jpeg": 20},
        {"elastic_px": 4, "stain": 0.5, "clutter": 0.5, "wash": 0.5, "jpeg": 5, "grey": 0.5, "invert": 0.5},
    ],
    ids="-".join,
)
def test_variation_keeps_shape_type_and_range_and_follows_from_its_generator(changes: dict[str, Any]) -> None:
    plain, varied = Variation(rotate=False), Variation(rotate=False, **changes)
    moved = 0.0
    for seed in range(8):
        crop, again = (draw_crop(some_tissue(), 64, 255.0, varied, np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(crop.image_NHW, again.image_NHW)
        assert torch.equal(crop.labels_HW, again.labels_HW)
        assert (crop.image_NHW.shape, crop.image_NHW.dtype) == ((3, 64, 64), torch.float32)
        assert (crop.labels_HW.shape, crop.labels_HW.dtype) == ((64, 64), torch.int64)
        assert 0 <= float(crop.image_NHW.min()) <= float(crop.image_NHW.max()) <= 255
        unvaried = draw_crop(some_tissue(), 64, 255.0, plain, np.random.default_rng(seed))
        moved = max(moved, float((crop.image_NHW - unvaried.image_NHW).abs().mean()))
        if not {"clutter", "elastic_px"} & changes.keys():
            assert torch.equal(crop.labels_HW, unvaried.labels_HW)
    assert moved > 0.5


@pytest.mark.parametrize("changes", [{"jpeg": 30}, {"band_gain": 0.3, "band_gamma": 0.3}, {"grey": 1}, {"invert": 1}])
def test_variation_takes_any_number_of_bands(changes: dict[str, Any]) -> None:
    for bands in (1, 2, 4):
        image_HWN = np.random.default_rng(bands).integers(0, 255, (50, 40, bands), dtype=np.uint8)
        example = Example("bands", image_HWN, np.zeros((50, 40), np.uint8))
        crop = draw_crop(example, 48, 255.0, Variation(**changes), np.random.default_rng(1))
        assert crop.image_NHW.shape == (bands, 48, 48)
        assert bool(torch.isfinite(crop.image_NHW).all())


def test_negative_and_grey_are_what_they_say() -> None:
    example, seed = some_tissue(), 3
    plain, negative, grey = (
        draw_crop(example, 64, 255.0, variation, np.random.default_rng(seed)).image_NHW
        for variation in (Variation(), Variation(invert=1.0), Variation(grey=1.0))
    )
    assert torch.allclose(negative, 255 - plain, atol=1e-3)
    assert torch.allclose(grey, plain.mean(0).expand(3, -1, -1), atol=1e-3)


def test_plain_crops_are_turned_alone_and_as_many_as_asked_for() -> None:
    varied: dict[str, Any] = {
        "scale": (2.0, 2.0),
        "gain": 0.5,
        "stain": 0.5,
        "clutter": 1.0,
        "invert": 1.0,
        "noise": 0.1,
    }
    example, plain = some_tissue(), []
    for seed in range(40):
        random = np.random.default_rng(seed)
        random.random()
        turned = draw_crop(example, 64, 255.0, Variation(), random)
        crop = draw_crop(example, 64, 255.0, Variation(**varied, plain=0.5), np.random.default_rng(seed))
        plain.append(torch.equal(crop.image_NHW, turned.image_NHW) and torch.equal(crop.labels_HW, turned.labels_HW))
    assert 10 < sum(plain) < 30


def test_hue_turns_leave_grey_and_brightness_alone() -> None:
    image_HWN = np.zeros((16, 16, 3), np.uint8)
    image_HWN[:8], image_HWN[8:] = 120, (90, 140, 130)
    example = Example("colours", image_HWN, np.zeros((16, 16), np.uint8))
    crop = draw_crop(example, 16, 255.0, Variation(turn_hue=120, rotate=False), np.random.default_rng(4))
    assert torch.allclose(crop.image_NHW[:, 2], torch.full((3, 16), 120.0), atol=0.01)
    assert torch.allclose(crop.image_NHW.mean(0)[12], torch.full((16,), 120.0), atol=0.01)
    assert (crop.image_NHW[:, 12, 8] - torch.tensor([90.0, 140.0, 130.0])).abs().max() > 5


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_loses_what_a_jpeg_file_loses(quality: int) -> None:
    image_HWN = some_tissue().image_HWN[:83, :94]
    stream = io.BytesIO()
    Image.fromarray(image_HWN).save(stream, "JPEG", quality=quality, subsampling=2)
    theirs_HWN = np.array(Image.open(stream)).astype(np.float32)
    ours_NHW = jpeg(torch.from_numpy(image_HWN).permute(2, 0, 1) / 255, quality) * 255
    ours_HWN = ours_NHW.permute(1, 2, 0).numpy()
    lost = np.abs(theirs_HWN - image_HWN).mean()
    assert np.abs(ours_HWN - theirs_HWN).mean() < max(1.2, 0.35 * lost)
    assert np.abs(ours_HWN - image_HWN).mean() == pytest.approx(lost, rel=0.25, abs=0.5)


def test_clutter_hides_objects_whole_pixel_by_pixel_and_invents_none() -> None:
    example = some_tissue()
    image_NHW = torch.from_numpy(example.image_HWN).permute(2, 0, 1) / 255
    instances_HW = torch.from_numpy(example.instances_HW.astype(np.int64))  # pyright: ignore[reportOptionalMemberAccess]
    hidden: list[bool] = []
    for seed in range(40):
        cluttered_NHW, labels_HW = clutter(image_NHW, instances_HW, np.random.default_rng(seed))
        assert bool(((labels_HW == instances_HW) | (labels_HW == 0)).all())
        assert bool(torch.isfinite(cluttered_NHW).all())
        assert float(cluttered_NHW.min()) >= 0
        assert (cluttered_NHW - image_NHW).abs().max() > 0.05
        hidden.append(bool((labels_HW != instances_HW).any()))
    assert 5 < sum(hidden) < 35


def test_later_variations_change_nothing_while_they_are_off(tmp_path: Path) -> None:
    """A checkpoint from before they were known must still be continued, with the crops that it would have drawn."""
    assert not set(LATER) & Variation(stain=0.2).model_dump(mode="json").keys()
    dumped = a_config().model_dump(mode="json")
    assert not {"separate", "start"} & dumped.keys()
    a_trainer(tmp_path).run(2)
    assert a_trainer(tmp_path).progress.step == 2
    assert set(LATER) <= Variation(**dict.fromkeys(LATER, 1)).model_dump(mode="json").keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"grey": 1.5},
        {"plain": 1.5},
        {"invert": -0.1},
        {"jpeg": 0},
        {"jpeg": 101},
        {"turn_hue": 270},
        {"band_gain": -1},
        {"stains": 1},
    ],
    ids=str,
)
def test_variation_outside_its_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Variation(**changes)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path: Path) -> None:
    assert read_recipe(path).training.groups


def test_images_held_back_are_neither_trained_nor_chosen_on(tmp_path: Path) -> None:
    for stem in map(str, range(60)):
        Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / f"{stem}.png")
    (tmp_path / "labels").mkdir()
    for stem in map(str, range(60)):
        Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "labels" / f"{stem}.png")
    fields: dict[str, Any] = {"images": tmp_path, "labels": tmp_path / "labels", "image_names": "*.png"}
    card = read_recipe(RECIPES / "nuclei.toml").card
    before = read_examples(DataConfig(**fields), card)
    data = DataConfig(**fields, held_back_one_in=10, validation_one_in=4)
    training, choosing = read_examples(data, card)
    held_back = read_held_back(data)
    assert [each.name for each in held_back] == [each.name for each in before[1]]
    assert all(in_validation(each.name) for each in held_back)
    assert {each.name for each in [*training, *choosing]} == {each.name for each in before[0]}
    assert [each.name for each in choosing] == [each.name for each in before[0] if in_choice(each.name, 4)]
    assert 5 < len(choosing) < 25
    assert read_held_back(DataConfig(**fields)) == []


def test_images_are_changed_for_measuring_without_moving_their_objects() -> None:
    example = some_tissue()
    for name, change in CHANGES.items():
        changed = change(example)
        assert changed.image_HWN.dtype == np.uint8, name
        side = {"half": 48, "double": 192}.get(name, 96)
        assert changed.image_HWN.shape == (side, side, 3), name
        assert changed.instances_HW is not None
        assert changed.labels_HW.shape == changed.instances_HW.shape == (side, side), name
        assert np.array_equal(changed.labels_HW > 0, changed.instances_HW > 0), name
        if side == 96:
            assert np.array_equal(changed.labels_HW, example.labels_HW), name
        nuclei = changed.labels_HW > 0
        darker = changed.image_HWN[~nuclei].mean() - changed.image_HWN[nuclei].mean()
        assert (darker < -20) if name == "inverted" else (darker > 20), name
    assert np.array_equal(CHANGES["double"](example).labels_HW, np.kron(example.labels_HW, np.ones((2, 2), np.uint8)))
    assert np.abs(stained(1, 1, 1)(example).image_HWN.astype(int) - example.image_HWN).max() <= 1
