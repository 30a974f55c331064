"""A task that a tiny network learns within a minute: bright discs on a dark, noisy ground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from unet_core.bundles.card import ClassInfo, Decision, ModelCard, Normalization
from unet_core.training.data import Example
from unet_core.training.recipe import TrainingConfig, Variation
from unet_core.training.trainer import Trainer

CARD = ModelCard(
    name="discs",
    description="bright discs on a dark, noisy ground",
    architecture="unet",
    parameters={"bands": 1, "classes": 1, "first_channels": 4, "depth": 2},
    bands=("gray",),
    dtype="uint8",
    classes=(ClassInfo("background", "#000000"), ClassInfo("disc", "#56b4e9")),
    decision=Decision("threshold", (0.5,)),
    normalization=Normalization((64.0,), (64.0,)),
    license="Apache-2.0",
)


def discs(count: int, seed: int) -> list[Example]:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :40]
    examples: list[Example] = []
    for index in range(count):
        labels_HW = np.zeros((48, 40), bool)
        for _ in range(3):
            labels_HW |= (y - random.uniform(0, 48)) ** 2 + (x - random.uniform(0, 40)) ** 2 < random.uniform(20, 90)
        image_HW = np.where(labels_HW, 170, 70) + random.normal(0, 25, labels_HW.shape)
        image_HWN = image_HW.clip(0, 255).astype(np.uint8)[..., None]
        instances_HW = np.zeros(labels_HW.shape, np.int32)
        ndimage.label(labels_HW, output=instances_HW)
        examples.append(Example(str(index), image_HWN, labels_HW.astype(np.uint8), instances_HW=instances_HW))
    return examples


def a_config(**changes: Any) -> TrainingConfig:
    fields: dict[str, Any] = {
        "steps": 60,
        "batch": 4,
        "tile_px": 32,
        "learning_rate": 1e-2,
        "warmup_steps": 5,
        "average_decay": 0.9,
        "groups": {"all": Variation(scale=(0.8, 1.25), gain=0.1, blur_px=0.5, noise=0.05)},
        "validate_every": 20,
        "checkpoint_every": 10,
    }
    return TrainingConfig(**(fields | changes))


def a_card(architecture: str, **parameters: Any) -> ModelCard:
    """The same task for another network."""
    fields = {"architecture": architecture, "parameters": {"bands": 1, "classes": 1, **parameters}}
    return ModelCard.model_validate({**CARD.model_dump(), **fields})


def a_trainer(folder: Path, card: ModelCard = CARD, **changes: Any) -> Trainer:
    return Trainer(a_config(**changes), card, discs(8, seed=1), discs(4, seed=2), folder)


def train_discs(folder: Path, card: ModelCard, changes: dict[str, Any]) -> None:
    """The same, as the work of a process of its own; says each step that is done."""
    a_trainer(folder, card, **changes).run(on_step=lambda progress: print(progress.step, flush=True))  # noqa: T201
