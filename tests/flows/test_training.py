"""Training: it learns, continues bit for bit, guards against bad data, and its figures are true."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha1
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import CARD, a_config, a_trainer, discs
from PIL import Image

from flows.config.recipe import DataConfig, read_recipe
from flows.training.examples import read_examples, read_held_back
from flows.training.train import train
from unet_core.bundles.bundle import load_bundle
from unet_core.errors import TrainingError
from unet_core.training import losses, metrics
from unet_core.training.augmentation import CropSampler, draw_crop
from unet_core.training.data import Example, check_examples, in_validation, modality
from unet_core.training.evaluation import evaluate
from unet_core.training.recipe import Variation
from unet_core.training.trainer import CHECKPOINT_NAME, Trainer

RECIPE = Path(__file__).parents[2] / "unet_core" / "recipes" / "nuclei.toml"


pytestmark = pytest.mark.usefixtures("on_one_thread")


def test_training_learns_and_its_card_tells_the_truth(tmp_path: Path) -> None:
    progress = a_trainer(tmp_path).run()
    bundle = load_bundle(tmp_path / "bundle")
    score = evaluate(bundle.module, bundle.card, discs(4, seed=2))["all"]
    assert score.mean_iou > 0.8
    assert score.mean_iou == progress.best_iou == bundle.card.training["validation"]["all"]["mean_iou"]
    assert bundle.card.training["training_images"] == {"all": 8}
    assert bundle.card.training["step"] == progress.best_step
    assert [entry["step"] for entry in progress.history] == [20, 40, 60]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_an_undisturbed_one(tmp_path: Path, precision: str) -> None:
    whole = a_trainer(tmp_path / "whole", precision=precision)
    whole.run()
    for until in (14, 37, 60):  # neither a validation nor a checkpoint is due at the first two
        torch.manual_seed(until)
        parts = a_trainer(tmp_path / "parts", precision=precision)
        parts.run(until)
    assert parts.progress == whole.progress
    for one, other in ((whole.learner.network, parts.learner.network), (whole.learner.average, parts.learner.average)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    weights = [tmp_path / run / "bundle" / "weights.safetensors" for run in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = a_trainer(tmp_path / "whole")
    whole.run(30)
    a_trainer(tmp_path / "killed").run(20)
    saved = (tmp_path / "killed" / CHECKPOINT_NAME).read_bytes()
    a_trainer(tmp_path / "killed").run(26)
    (tmp_path / "killed" / CHECKPOINT_NAME).write_bytes(saved)  # steps 21 to 26 were lost with the process
    killed = a_trainer(tmp_path / "killed")
    assert killed.progress.step == 20
    killed.run(30)
    for name, tensor in whole.learner.network.state_dict().items():
        assert torch.equal(tensor, killed.learner.network.state_dict()[name]), name


def test_training_may_grow_longer_until_its_rate_falls(tmp_path: Path) -> None:
    a_trainer(tmp_path, steps=40).run(20)
    longer = a_trainer(tmp_path, steps=100)
    longer.run(75)
    with pytest.raises(TrainingError, match="keep steps as they were"):
        a_trainer(tmp_path, steps=200)


def test_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    a_trainer(tmp_path).run(2)
    with pytest.raises(TrainingError, match=r"batch 4 is now 2.*use another folder"):
        a_trainer(tmp_path, batch=2)


def test_broken_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TrainingError, match="can't be read"):
        a_trainer(tmp_path)


def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = a_trainer(tmp_path)
    trainer.run(10)
    saved = (tmp_path / CHECKPOINT_NAME).read_bytes()
    monkeypatch.setattr(trainer.learner.loss, "forward", lambda outputs, *_: outputs[0].mean() * float("nan"))
    with pytest.raises(TrainingError, match="step 10: the loss is nan"):
        trainer.run()
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == saved
    assert all(bool(torch.isfinite(value).all()) for value in trainer.learner.network.state_dict().values())


def test_crop_follows_from_its_generator_and_keeps_labels_on_their_pixels() -> None:
    example = discs(1, seed=3)[0]
    weights_HW = example.labels_HW.astype(np.float32)
    image_HWN = (example.labels_HW * 255)[..., None]
    bright = Example("labels as image", image_HWN, example.labels_HW, weights_HW=weights_HW)
    for seed in range(20):
        random, again = np.random.default_rng(seed), np.random.default_rng(seed)
        crop = draw_crop(bright, 40, 255.0, Variation(scale=(1.0, 2.0)), random)
        assert torch.equal(crop.image_NHW, draw_crop(bright, 40, 255.0, Variation(scale=(1.0, 2.0)), again).image_NHW)
        # Bilinear values and nearest labels part at the outlines only; weights are where the image is.
        assert ((crop.image_NHW[0] > 127.5).long() != crop.labels_HW).float().mean() < 0.02
        assert crop.weights_HW is not None
        assert torch.allclose(crop.weights_HW * 255, crop.image_NHW[0], atol=0.01)


def test_crops_do_not_depend_on_who_draws_their_neighbours() -> None:
    weighted = discs(1, seed=3)[0]
    examples = [replace(weighted, weights_HW=np.full(weighted.labels_HW.shape, 3, np.float32)), *discs(2, seed=4)]
    sampler = CropSampler(a_config(batch=12), examples, 255.0)
    whole, second = sampler.batch(5), sampler.batch(5, 6, 12)
    assert torch.equal(whole.image_NHW[6:], second.image_NHW)
    assert torch.equal(whole.labels_HW[6:], second.labels_HW)
    assert whole.weights_HW is not None
    assert set(whole.weights_HW.round(decimals=3).unique().tolist()) == {1.0, 3.0}
    assert CropSampler(a_config(), discs(2, seed=4), 255.0).batch(0).weights_HW is None


def test_stain_jitter_changes_colour_and_leaves_white_alone() -> None:
    white = Example("white", np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32), np.uint8))
    violet = Example("violet", np.full((32, 32, 3), (120, 60, 160), np.uint8), np.zeros((32, 32), np.uint8))
    changed = [
        draw_crop(example, 32, 255.0, Variation(stain=0.3), np.random.default_rng(0)).image_NHW[:, 16, 16]
        for example in (white, violet)
    ]
    assert torch.allclose(changed[0], torch.full((3,), 255.0), atol=0.01)
    assert (changed[1] - torch.tensor([120.0, 60.0, 160.0])).abs().max() > 3


def test_counterstain_darkens_the_ground_more_than_the_foreground() -> None:
    labels_HW = np.zeros((64, 64), np.uint8)
    labels_HW[16:48, 16:48] = 1
    tissue = Example("tissue", np.full((64, 64, 3), (230, 220, 235), np.uint8), labels_HW)
    falls: list[list[float]] = []
    for seed in range(12):
        crop = draw_crop(tissue, 64, 255.0, Variation(counterstain=1.0), np.random.default_rng(seed))
        falls.append([float(220 - crop.image_NHW[1, crop.labels_HW == label].mean()) for label in (0, 1)])
    ground, foreground = np.mean(falls, axis=0)
    assert ground > 2 * foreground > 0


@pytest.mark.parametrize(
    ("image_shape", "labels_shape", "greatest", "message"),
    [
        ((32, 32, 1), (32, 31), 1, r"labels of odd are \(32, 31\), its image \(32, 32\)"),
        ((32, 32, 3), (32, 32), 1, "the card wants uint8 .height, width, 1 bands"),
        ((32, 32, 1), (32, 32), 2, "hold class 2, the card ends at 1"),
    ],
)
def test_example_that_does_not_fit_the_card_is_named(
    image_shape: tuple[int, ...], labels_shape: tuple[int, ...], greatest: int, message: str
) -> None:
    odd = Example("odd", np.zeros(image_shape, np.uint8), np.full(labels_shape, greatest, np.uint8))
    with pytest.raises(TrainingError, match=message):
        check_examples([*discs(1, seed=1), odd], CARD)


def test_example_of_a_group_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"groups \['all'\], the recipe varies \['stained'\]"):
        a_trainer(tmp_path, groups={"stained": Variation()})


def test_tile_off_the_networks_stride_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"tile_px 30 is not a multiple of the network's stride 4.*use 32"):
        a_trainer(tmp_path, tile_px=30)


def test_no_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no images"):
        Trainer(a_config(), CARD, discs(1, seed=1), [], tmp_path)


def test_validation_without_foreground_is_refused(tmp_path: Path) -> None:
    empty = Example("empty", np.zeros((32, 32, 1), np.uint8), np.zeros((32, 32), np.uint8))
    with pytest.raises(TrainingError, match="none of the 1 images to validate on holds any foreground"):
        Trainer(a_config(), CARD, discs(1, seed=1), [empty], tmp_path)


def write_pngs(folder: Path, count: int) -> None:
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for example in discs(count, seed=4):
        Image.fromarray(example.image_HWN[..., 0]).save(folder / "images" / f"{example.name}.png")
        Image.fromarray(example.labels_HW * 7).save(folder / "labels" / f"{example.name}.png")


def test_recipe_and_png_folders_become_a_bundle(tmp_path: Path) -> None:
    write_pngs(tmp_path, 24)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"""
        [data]
        images = "{tmp_path / "images"}"
        labels = "{tmp_path / "labels"}"
        label_kind = "instances"
        [card]
        name = "discs"
        description = "discs"
        architecture = "unet"
        parameters = {{ bands = 1, classes = 1, first_channels = 4, depth = 2 }}
        bands = ["gray"]
        dtype = "uint8"
        classes = [{{ name = "background", color = "#000000" }}, {{ name = "disc", color = "#56b4e9" }}]
        decision = {{ rule = "threshold", thresholds = [0.5] }}
        normalization = {{ mean = [64], std = [64] }}
        license = "Apache-2.0"
        [training]
        steps = 4
        batch = 2
        tile_px = 32
        groups = {{ all = {{}} }}
    """)
    card = load_bundle(train(recipe, tmp_path / "out")).card
    assert sum(card.training["training_images"].values()) + card.training["validation"]["all"]["images"] == 24


def test_image_without_labels_is_named(tmp_path: Path) -> None:
    write_pngs(tmp_path, 2)
    (tmp_path / "labels" / "1.png").unlink()
    with pytest.raises(TrainingError, match=r"1.png' are missing"):
        read_examples(DataConfig(images=tmp_path / "images", labels=tmp_path / "labels"), CARD)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no image"):
        read_examples(DataConfig(images=tmp_path, labels=tmp_path), CARD)


def test_wrong_recipe_names_each_entry(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.read_text().replace("batch = 8", "batch = 0\nspeed = 3"))
    with pytest.raises(TrainingError, match=r"training.batch: .*; training.speed: "):
        read_recipe(tmp_path / "r.toml")


def test_split_is_the_data_folders_own() -> None:
    by_hand = [stem for stem in map(str, range(40)) if int(sha1(stem.encode()).hexdigest(), 16) % 10 == 0]
    assert [stem for stem in map(str, range(40)) if in_validation(stem)] == by_hand == ["4"]


def test_metrics_follow_from_the_confusion_matrix() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 1, 1, 0, 0])
    confusion = metrics.confusion_matrix(truth, predicted, 4)
    assert metrics.iou(confusion) == pytest.approx([2 / 5, 3 / 5, 0, np.nan], nan_ok=True)
    assert metrics.dice(confusion) == pytest.approx([4 / 7, 6 / 8, 0, np.nan], nan_ok=True)
    assert metrics.precision(confusion) == pytest.approx([2 / 4, 3 / 4, np.nan, np.nan], nan_ok=True)
    assert metrics.recall(confusion) == pytest.approx([2 / 3, 3 / 4, 0, np.nan], nan_ok=True)
    with pytest.raises(ValueError, match=r"labels 0 to 2: they must lie in 0\.\.1"):
        metrics.confusion_matrix(truth, predicted, 2)


def test_dice_loss_follows_its_formula() -> None:
    logits_NCHW = torch.tensor([2.0, -1.0, 0.5, -3.0]).reshape(1, 1, 2, 2)
    targets_NCHW = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    chance, target = logits_NCHW.sigmoid(), targets_NCHW
    plain = 1 - (2 * (chance * target).sum() + 1) / (chance.sum() + target.sum() + 1)
    squared = 1 - (2 * (chance * target).sum() + 1) / ((chance**2).sum() + target.sum() + 1)
    assert torch.allclose(losses.DiceLoss()(logits_NCHW, targets_NCHW), plain)
    assert torch.allclose(losses.DiceLoss(squared=True)(logits_NCHW, targets_NCHW), squared)
    both = losses.DiceBCELoss(dice_weight=0.25)(logits_NCHW, targets_NCHW)
    assert torch.allclose(both, 0.25 * plain + 0.75 * losses.BCELoss()(logits_NCHW, targets_NCHW))
    empty = losses.DiceLoss()(torch.full((1, 1, 8, 8), -40.0), torch.zeros(1, 1, 8, 8))
    assert empty.item() == pytest.approx(0, abs=1e-6)


def test_targets_follow_the_decision_rule() -> None:
    labels_NHW = torch.tensor([[[0, 1, 2]]])
    threshold = losses.one_hot_targets(labels_NHW, 2, "threshold")
    argmax = losses.one_hot_targets(labels_NHW, 3, "argmax")
    assert threshold[0, :, 0].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert argmax[0, :, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_modality_tells_the_kinds_of_microscopy_apart() -> None:
    dark, grey = np.full((8, 8, 3), 20, np.uint8), np.full((8, 8, 3), 200, np.uint8)
    pink = np.full((8, 8, 3), (220, 170, 200), np.uint8)
    assert [modality(image) for image in (dark, grey, pink)] == ["fluorescence", "brightfield", "stained"]


@pytest.mark.parametrize(("model", "figures"), [("nuclei", "reported"), ("nuclei-small", "validation")])
def test_shipped_nuclei_models_reach_their_figures(model: str, figures: str, data_dir: Path, tmp_path: Path) -> None:
    bundle = load_bundle(model)
    names = sorted(path.name for path in (data_dir / "nuclei" / "images").glob("*.png"))
    held_back = [name for name in names if in_validation(name.removesuffix(".png"))]
    claimed = bundle.card.training[figures]
    assert len(held_back) == claimed["all"]["images"] == 52
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for name in held_back[::4]:
            (tmp_path / kind / name).symlink_to(data_dir / "nuclei" / kind / name)
    data = DataConfig(
        images=tmp_path / "images",
        labels=tmp_path / "labels",
        label_kind="instances",
        group_by="modality",
        held_back_one_in=10,
    )
    separates = "border" in [each.name for each in bundle.card.classes]
    scores = evaluate(bundle.module, bundle.card, read_held_back(data), separates=separates)
    assert scores["all"].images == 13
    for group in ("fluorescence", "stained"):
        expected = claimed[group]["mask_iou" if separates else "mean_iou"]
        assert scores[group].mean_iou == pytest.approx(expected, abs=0.08), group
