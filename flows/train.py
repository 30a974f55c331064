"""The training command: reads a recipe and its images, and hands them to `unet_core.training`."""

from __future__ import annotations

import argparse
import logging
import tomllib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, ValidationError

from unet_core.card import ModelCard
from unet_core.data import Example, in_validation, modality
from unet_core.errors import TrainingError
from unet_core.recipe import TrainingConfig

logger = logging.getLogger(__name__)


class DataConfig(BaseModel):
    """Where images and labels lie: PNG files of the same name in two folders.

    `instances`: every label above 0 is class 1; `classes`: labels are the card's. One image in
    `validation_one_in`, chosen by the hash of its name, is for validation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Path
    labels: Path
    label_kind: Literal["instances", "classes"] = "classes"
    group_by: Literal["none", "modality"] = "none"
    validation_one_in: int = 10


class Recipe(BaseModel):
    """The whole of a training file: data, the card to be, and the training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataConfig
    card: ModelCard
    training: TrainingConfig


def train(config_path: Path, out: Path | None = None, threads: int | None = None) -> Path:
    """Train as the recipe says, in the folder `out` (`runs/train-NAME`), and return the bundle's folder.

    The same call again continues where it stopped. `threads` overrides the recipe's. Raises TrainingError
    for a recipe, image or label that can't be used.
    """
    # Reading a recipe needs no torch; a mistake in it is told before torch's seconds of import.
    recipe = read_recipe(config_path)
    if threads is not None:
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"threads": threads})})
    training, validation = read_examples(recipe.data)
    from unet_core.training import BUNDLE_NAME, Trainer

    logger.info("%d images to train on, %d to validate on", len(training), len(validation))
    folder = Path("runs") / f"train-{recipe.card.name}" if out is None else out
    progress = Trainer(recipe.training, recipe.card, training, validation, folder).run()
    logger.info("best mean foreground IoU %.4f, at step %d", progress.best_iou, progress.best_step)
    return folder / BUNDLE_NAME


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; TrainingError names every entry that is wrong."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {' '.join(fault['msg'].split())}" for fault in error.errors()
        )
        raise TrainingError(f"recipe {str(path)!r} is not one: {faults}; correct it") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"recipe {str(path)!r} can't be read: {error}") from error


def read_examples(data: DataConfig) -> tuple[list[Example], list[Example]]:
    """The examples for training and for validation, by name."""
    training: list[Example] = []
    validation: list[Example] = []
    for path in sorted(data.images.glob("*.png")):
        image_HWN, labels_HW = _read_png(path), _read_png(data.labels / path.name)
        if image_HWN.ndim == 2:
            image_HWN = image_HWN[:, :, None]
        instances_HW = None
        if data.label_kind == "instances":
            instances_HW, labels_HW = labels_HW, labels_HW > 0
        elif int(labels_HW.max(initial=0)) > 254:
            raise TrainingError(f"labels of {path.name} go up to {labels_HW.max()}: classes end at 254")
        group = modality(image_HWN) if data.group_by == "modality" else "all"
        example = Example(path.stem, image_HWN, labels_HW.astype(np.uint8), group, instances_HW)
        (validation if in_validation(path.stem, data.validation_one_in) else training).append(example)
    if not training:
        raise TrainingError(f"folder {str(data.images)!r} holds no PNG to train on; correct data.images")
    if not validation:
        raise TrainingError(
            f"none of the {len(training)} images in {str(data.images)!r} is for validation: no figure could be "
            "measured; add images or lower data.validation_one_in"
        )
    return training, validation


def _read_png(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            return np.array(image)
    except FileNotFoundError as error:
        raise TrainingError(f"{str(path)!r} is missing: every image needs labels of its own file name") from error
    except (OSError, UnidentifiedImageError) as error:
        raise TrainingError(f"{str(path)!r} can't be read as an image: {error}; replace or remove it") from error


def main() -> None:
    """`python -m flows.train CONFIG [--out FOLDER] [--threads N]`."""
    parser = argparse.ArgumentParser(description=train.__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(arguments.config, arguments.out, arguments.threads)


if __name__ == "__main__":
    main()
