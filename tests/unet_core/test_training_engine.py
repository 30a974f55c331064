"""The engine under a recipe: schedules, precisions, optimizers, heads, kills and several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discs import CARD, a_card, a_config, a_trainer, discs, train_discs

from unet_core.bundles.bundle import load_bundle
from unet_core.bundles.card import ModelCard
from unet_core.errors import TrainingError
from unet_core.training.augmentation import CropSampler
from unet_core.training.data import Example
from unet_core.training.evaluation import evaluate
from unet_core.training.feed import Feed
from unet_core.training.processes import Processes, launch
from unet_core.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
# Without batch norm a step doesn't depend on how its batch is split.
NORMLESS = a_card("unet_dice", first_channels=4, depth=2)


pytestmark = pytest.mark.usefixtures("on_one_thread")


def assert_same(one: Trainer, other: Trainer) -> None:
    for name, tensor in one.learner.network.state_dict().items():
        assert torch.equal(tensor, other.learner.network.state_dict()[name]), name
    for name, tensor in one.learner.average.state_dict().items():
        assert torch.equal(tensor, other.learner.average.state_dict()[name]), name
    assert one.progress == other.progress


def test_schedules_follow_their_formulas() -> None:
    rates = {
        name: [a_config(steps=100, warmup_steps=10, schedule=name).rate_at(step) for step in (0, 10, 55, 85, 100)]
        for name in ("constant", "cosine", "trapezoid")
    }
    first = 1e-2 / 11
    assert rates["constant"] == pytest.approx([first, 1e-2, 1e-2, 1e-2, 1e-2])
    assert rates["cosine"] == pytest.approx([first, 1e-2, 5e-3, 1e-2 * (1 + np.cos(np.pi * 75 / 90)) / 2, 0])
    assert rates["trapezoid"] == pytest.approx([first, 1e-2, 1e-2, 5e-3, 0])


def test_cosine_can_not_grow_longer_and_a_constant_rate_can(tmp_path: Path) -> None:
    for schedule in ("cosine", "constant"):
        a_trainer(tmp_path / schedule, steps=20, schedule=schedule).run(10)
    assert a_trainer(tmp_path / "constant", steps=90, schedule="constant").progress.step == 10
    with pytest.raises(TrainingError, match=r"at step 10 of 20.*keep steps as they were"):
        a_trainer(tmp_path / "cosine", steps=90, schedule="cosine")


def test_accumulated_passes_equal_one_pass(tmp_path: Path) -> None:
    whole = a_trainer(tmp_path / "whole", NORMLESS)
    parts = a_trainer(tmp_path / "parts", NORMLESS, accumulate=4)
    assert whole.run(6).losses == pytest.approx(parts.run(6).losses, rel=1e-4)
    with pytest.raises(TrainingError, match=r"batch 4 can't be split evenly over 1 processes of 3 passes.*use batch 6"):
        a_trainer(tmp_path / "odd", NORMLESS, accumulate=3)


def test_crops_drawn_ahead_are_the_same(tmp_path: Path) -> None:
    here, ahead = a_trainer(tmp_path / "here"), a_trainer(tmp_path / "ahead", loaders=2)
    here.run(5)
    ahead.run(3)
    ahead.run(5)
    assert_same(here, ahead)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.99, "learning_rate": 1e-3, "weight_decay": 1e-4},
        {"optimizer": "adam", "schedule": "cosine"},
        {"precision": "float16", "accumulate": 2},
    ],
    ids=["sgd", "adam", "float16"],
)
def test_any_optimizer_and_precision_learns_and_continues_bit_for_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = a_trainer(tmp_path / "whole", steps=30, **changes)
    whole.run()
    a_trainer(tmp_path / "parts", steps=30, **changes).run(13)
    parts = a_trainer(tmp_path / "parts", steps=30, **changes)
    parts.run()
    assert_same(whole, parts)
    assert np.mean(whole.progress.losses[-5:]) < np.mean(whole.progress.losses[:5])


def test_weight_decay_is_an_l2_term_with_adam(tmp_path: Path) -> None:
    """The L2 norm of the weights, as unet_x is regularised: it enters the gradient, before Adam scales it."""
    learner = a_trainer(
        tmp_path, a_card("unet_x1", first_channels=4, depth=1), optimizer="adam", weight_decay=0.1
    ).learner
    (weight, *_) = learner.network.parameters()
    before = weight.detach().clone()
    for parameter in learner.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()
    # Adam's first step is the rate times the gradient's sign, whatever its size.
    assert torch.allclose(before - weight, learner.config.learning_rate * before.sign(), rtol=1e-3, atol=1e-6)


def test_overflowing_float16_step_is_left_out_and_the_scale_falls(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path, precision="float16")
    before = {name: tensor.clone() for name, tensor in trainer.learner.network.named_parameters()}
    trainer.learner.scaler.load_state_dict({**trainer.learner.scaler.state_dict(), "scale": 2.0**120})
    trainer.run(1)
    assert trainer.learner.scaler.get_scale() == 2.0**119
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.learner.network.named_parameters())


def test_training_that_gets_no_better_ends_early(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"validate_every": 2, "learning_rate": 1e-9, "average_decay": 0.0, "patience": 3}
    progress = a_trainer(tmp_path, **changes).run()
    assert progress.step == progress.best_step + 6 < 60
    assert load_bundle(tmp_path / "bundle").card.training["ended"].startswith("early: 3 validations in a row")
    assert a_trainer(tmp_path, **changes).run().step == progress.step
    changes["patience"] = 4
    longer = a_trainer(tmp_path, **changes).run()
    assert longer.step == progress.step + 2


def test_deeply_supervised_network_trains_every_head_and_its_levels_are_scored(tmp_path: Path) -> None:
    card = a_card("unetpp", first_channels=4, level=2, deep_supervision=True)
    trainer = a_trainer(tmp_path, card, steps=20)
    heads = {name: tensor.clone() for name, tensor in trainer.learner.network.named_parameters() if "head" in name}
    trainer.run()
    now = dict(trainer.learner.network.named_parameters())
    assert len(heads) == 4
    assert not any(torch.equal(tensor, now[name]) for name, tensor in heads.items())
    bundle = load_bundle(tmp_path / "bundle")
    facts = bundle.card.training
    assert facts["pruned"].keys() == {"L1", "L2"}
    assert facts["pruned"]["L2"] == facts["validation"]["all"]
    alone = evaluate(bundle.module.pruned(1), bundle.card, discs(4, seed=2))["all"]  # pyright: ignore[reportCallIssue]
    assert facts["pruned"]["L1"]["mean_iou"] == alone.mean_iou
    with pytest.raises(TrainingError, match="3 numbers for 2 heads"):
        a_trainer(tmp_path / "odd", card, head_weights=(1, 2, 3))


def test_unet3p_trains_with_its_own_loss_and_guidance(tmp_path: Path) -> None:
    card = a_card("unet3p", first_channels=2, skip_channels=2, deep_supervision=True, classification_guided=True)
    parameters = {"scales": 2, "window_px": 11}
    trainer = a_trainer(tmp_path, card, steps=2, batch=2, loss="unet3p", loss_parameters=parameters)
    presence = [name for name, _ in trainer.learner.network.named_parameters() if "presence" in name]
    before = {name: tensor.clone() for name, tensor in trainer.learner.network.named_parameters()}
    trainer.run()
    assert presence
    unmoved = [name for name, tensor in trainer.learner.network.named_parameters() if torch.equal(before[name], tensor)]
    assert not unmoved
    with pytest.raises(TrainingError, match=r"loss 'unet3p' can't judge these crops: 5 scales.*tile_px"):
        a_trainer(tmp_path / "small", card, loss="unet3p").run(1)


@pytest.mark.parametrize(
    ("card", "tile_px"),
    [
        (a_card("unet_original", first_channels=4, depth=1), 32),
        (a_card("unet_x3", first_channels=4, depth=2), 32),
        (a_card("patch_classifier", channels=4, hidden=8, kernels=[3, 3], last_kernel=2), 40),
    ],
    ids=lambda value: value.architecture if isinstance(value, ModelCard) else None,
)
def test_networks_of_another_output_grid_learn(tmp_path: Path, card: ModelCard, tile_px: int) -> None:
    trainer = a_trainer(tmp_path, card, steps=40, tile_px=tile_px, learning_rate=2e-2)
    progress = trainer.run()
    assert progress.best_iou > 0.5
    bundle = load_bundle(tmp_path / "bundle")
    assert evaluate(bundle.module, bundle.card, discs(4, seed=2))["all"].mean_iou == progress.best_iou


def test_unpadded_network_asks_for_crops_that_it_can_take(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"stride 16 plus the 188 px that it loses without padding.*use 268"):
        a_trainer(tmp_path, a_card("unet_original", first_channels=2), tile_px=256)


def test_border_weights_count_in_the_loss(tmp_path: Path) -> None:
    plain = a_trainer(tmp_path / "plain", loss="bce").run(1).losses[0]
    border = {"w0": 10, "sigma": 5}
    weighted = a_trainer(tmp_path / "weighted", loss="bce", border=border)
    assert weighted.run(1).losses[0] > 1.05 * plain
    nothing_added = a_trainer(tmp_path / "nothing", loss="bce", border={"w0": 0})
    assert nothing_added.run(1).losses[0] == pytest.approx(plain, rel=1e-5)
    with pytest.raises(TrainingError, match="border weighs pixels and loss 'dice' compares regions"):
        a_trainer(tmp_path / "dice", loss="dice", border=border)
    classes_only = [Example(each.name, each.image_HWN, each.labels_HW) for each in discs(2, seed=1)]
    with pytest.raises(TrainingError, match="labels of 0 name classes only"):
        Trainer(a_config(border=border), CARD, classes_only, classes_only, tmp_path / "classes")


def test_loss_that_does_not_fit_the_decision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="decision rule argmax, the card has threshold: use bce"):
        a_trainer(tmp_path, loss="cross_entropy")


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "dice_bce", "dice_cross_entropy", "focal", "iou"])
def test_every_loss_teaches_a_network_that_decides_by_argmax(tmp_path: Path, loss: str) -> None:
    fields = {"decision": {"rule": "argmax"}, "parameters": {**CARD.parameters, "classes": 2}}
    card = ModelCard.model_validate({**CARD.model_dump(), **fields})
    weighted: dict[str, Any] = {"loss_parameters": {"class_weights": [1, 2]}, "border": {"balance": True}}
    changes = weighted if loss == "cross_entropy" else {}
    progress = a_trainer(tmp_path, card, steps=40, loss=loss, **changes).run()
    assert progress.best_iou > 0.7
    assert progress.history[-1]["all"]["ap50"] > 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_gpu_teaches_and_continues(tmp_path: Path, precision: str) -> None:
    a_trainer(tmp_path, device="cuda", precision=precision).run(25)
    trainer = a_trainer(tmp_path, device="cuda", precision=precision)
    assert (trainer.progress.step, trainer.learner.device.type) == (25, "cuda")
    assert trainer.run().best_iou > 0.8
    bundle = load_bundle(tmp_path / "bundle")
    on_cpu = evaluate(bundle.module, bundle.card, discs(4, seed=2))["all"]
    assert on_cpu.mean_iou == pytest.approx(trainer.progress.best_iou, abs=0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="torch sees no GPU"):
        a_trainer(tmp_path, device="cuda")


def kill_at(step: int, folder: Path) -> None:
    """Train in a process of its own and kill it, so that nothing can be tidied up, once that step is done."""
    code = "import sys, pathlib, discs; discs.train_discs(pathlib.Path(sys.argv[1]), discs.CARD, {'threads': 1})"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= step:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait(60) == -signal.SIGKILL


def test_training_killed_at_any_step_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = a_trainer(tmp_path / "whole", threads=1)
    whole.run()
    for step in (7, 33):  # before the first checkpoint, and between two
        kill_at(step, tmp_path / "killed")
    killed = a_trainer(tmp_path / "killed", threads=1)
    assert 30 <= killed.progress.step < 60
    killed.run()
    assert_same(whole, killed)
    weights = [tmp_path / run / "bundle" / "weights.safetensors" for run in ("whole", "killed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_processes_follow_the_path_of_one(tmp_path: Path) -> None:
    changes = {"steps": 10, "threads": 1, "checkpoint_every": 5, "validate_every": 10}
    alone = a_trainer(tmp_path / "alone", NORMLESS, **changes)
    alone.run()
    launch(train_discs, (tmp_path / "both", NORMLESS, changes), count=2)
    state = torch.load(tmp_path / "both" / "checkpoint.pt", weights_only=True)
    assert state["identity"]["processes"] == 2
    assert state["progress"]["losses"] == pytest.approx(alone.progress.losses, rel=1e-3)
    for name, tensor in alone.learner.average.state_dict().items():
        assert torch.allclose(tensor, state["average"][name], rtol=1e-2, atol=1e-4), name
    assert load_bundle(tmp_path / "both" / "bundle").card.training["hardware"].startswith("2 process")


def no_such_recipe(text: str) -> None:
    raise TrainingError(text)


def test_error_in_one_of_several_processes_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^nothing to learn from$"):
        launch(no_such_recipe, ("nothing to learn from",), count=2)


def test_batch_that_several_processes_can_not_split_is_refused() -> None:
    sampler = CropSampler(a_config(batch=6, accumulate=2), discs(2, seed=1), 255.0)
    with pytest.raises(TrainingError, match=r"batch 6 can't be split evenly over 2 processes of 2.*use batch 8"):
        Feed(sampler, Processes(rank=1, count=2), loaders=0)
